"""Artifacts of a run in the Prefect UI: the release summary, the verdict as a picture, what is live."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable

from prefect import get_run_logger
from prefect.artifacts import acreate_image_artifact, acreate_markdown_artifact

from headway.domain.errors import TargetError
from headway.domain.plan import Analyze, Route
from headway.ledger import Ledger, ReleaseRecord, RolloutRecord, SchemaChange
from headway.rollout.analysis.plot import draw
from headway.rollout.executor import RolloutContext
from headway.rollout.markdown import live_markdown, release_markdown
from headway.rollout.step_titles import titles

__all__ = ["draw_verdict", "publish_live_state", "publish_migration_output", "publish_summary"]

LONGEST_OUTPUT = 64 * 1024  # characters


async def publish_summary(ledger: Ledger, release: ReleaseRecord) -> None:
    """Publish the summary of a release: its stages and the requests of users."""
    stages, requests = ledger.stages.by_release(release.id), ledger.rollouts.user_requests(release.id)
    await acreate_markdown_artifact(
        key=f"release-{release.app}",
        markdown=release_markdown(release, stages, requests),
        description=release.name,
    )


async def draw_verdict(ledger: Ledger, rollout: RolloutRecord) -> None:
    """Publish a plot of the readings behind a verdict. A failure to draw is logged, and changes nothing."""
    steps = ledger.rollouts.steps(rollout.id)
    names = dict(titles(rollout.plan))
    judged = [step for step in steps if isinstance(rollout.plan.steps[step.position], Analyze)]
    if not judged:
        return
    readings = [reading for _, reading in ledger.readings.by_rollout(rollout.id)]
    routed = [step for step in steps if isinstance(rollout.plan.steps[step.position], Route)]
    last = judged[-1]
    try:
        picture = await asyncio.to_thread(
            draw,
            readings,
            canary=rollout.plan.new,
            stable=rollout.plan.replaced,
            marks=[(step.started_at, names[step.position]) for step in routed],
            title=f"{rollout.app} {rollout.environment}: {names[last.position]}: {last.outcome or 'interrupted'}",
        )
        await acreate_image_artifact(
            image_url="data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode(),
            key=f"verdict-{rollout.app}-{rollout.environment}",
            description=last.detail,
        )
    except Exception as error:  # noqa: BLE001  # whatever the plotting library raises for these readings
        get_run_logger().warning("the verdict is not drawn: %s: %s", type(error).__name__, error)


async def publish_live_state(ledger: Ledger, context: RolloutContext) -> None:
    """Publish what the platform runs now, and record its URL.

    A platform that does not answer is logged, and changes nothing.
    """
    app, environment = context.record.app, context.record.environment
    try:
        url = (await asyncio.to_thread(context.target.observe, app)).url
        lines = await asyncio.to_thread(context.target.describe, app)
    except TargetError as error:
        get_run_logger().warning("%s %s: the live state is not shown: %s", app, environment, error.what)
        return
    ledger.rollouts.set_url(context.record.id, url)
    await acreate_markdown_artifact(
        key=f"live-{app}-{environment}", markdown=live_markdown(lines), description=f"{app} in {environment}"
    )


async def publish_migration_output(change: SchemaChange, output: Iterable[str]) -> None:
    """Publish the end of what the commands of a schema change printed."""
    printed = "\n".join(output)[-LONGEST_OUTPUT:] or "(nothing)"
    await acreate_markdown_artifact(
        key=f"migrations-{change.app}-{change.environment}",
        markdown=f"{change.kind} of {change.revision}: {', '.join(change.files)}\n\n```\n{printed}\n```",
        description=f"output of the migrations of {change.revision}",
    )
