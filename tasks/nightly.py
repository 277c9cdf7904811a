"""The steps of a night: look at each app, release what may go, write down what became of it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.deployments import arun_deployment
from prefect.runtime import flow_run

from headway.domain import freeze_windows
from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, ReleaseRecord
from headway.policy import nightly
from headway.policy.nightly import Night
from headway.scm.branch_head import head_of
from headway.system.paths import home
from tasks.release_record import ledger

__all__ = ["look", "registered", "release_tonight", "summarize"]

FOLLOW = 4 * 3600.0  # seconds until a night is over, whatever still goes on
POLL = 2.0  # seconds


def registered(only: list[str] | None) -> list[AppRecord]:
    """The apps a night looks at. Raises NotFound for a name that nobody registered."""
    return [ledger().apps.get(name) for name in only] if only else ledger().apps.all()


@task(task_run_name="look at {app.name}", cache_policy=NO_CACHE)
async def look(app: AppRecord, override: str) -> Night:
    """Whether the head of its branch is to be released, and why not."""
    try:
        _, head, settings = await asyncio.to_thread(head_of, app.repo, home() / "workspaces")
    except HeadwayError as error:
        return Night(app=app.name, outcome="failed", why=error.what)
    path = settings.release_path()
    if settings.app != app.name:
        return Night(app=app.name, outcome="not released", sha=head, why=f"its headway.yaml is that of {settings.app}")
    if not path:
        return Night(app=app.name, outcome="not released", sha=head, why="it has no environment")
    live = ledger().rollouts.live(app.name, path[-1])
    sha = ledger().revisions.find(app.name, live, environment=path[-1])[0].sha if live else None
    closed = freeze_windows.closed(settings.environment(path[-1]).freeze, datetime.now(UTC))
    why = nightly.why_not(head, sha, ledger().releases.by_commit(app.name, head), closed, override)
    get_run_logger().info("%s %s: %s", app.name, head[:7], why or "is released")
    return Night(app=app.name, outcome="not released" if why else "released", sha=head, why=why)


@task(task_run_name="release {app.name}", cache_policy=NO_CACHE)
async def release_tonight(app: AppRecord, found: Night, override: str, by: str) -> Night:
    """Release it and follow it to its end, or until it waits for a person."""
    if found.outcome != "released":
        return found
    run = await arun_deployment(
        "release/main",
        parameters={"repo": app.repo, "ref": found.sha, "by": by},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"nightly-{flow_run.get_id()}-{app.name}",
    )
    ended = await _follow(str(run.id), override, by)
    went = ended is not None and ended.state == "succeeded"
    words = f"{ended.name} {ended.state}: {ended.reason}".rstrip(": ") if ended else "its run ended before it began"
    return found.model_copy(update={"outcome": "released" if went else "failed", "why": words})


async def _follow(run_id: str, override: str, by: str) -> ReleaseRecord | None:
    """The release of a run when it has ended or waits for somebody; None when the run ended without one."""
    end = time.monotonic() + FOLLOW
    while time.monotonic() < end:
        found = ledger().releases.by_run(run_id)
        if found and not found.open:
            return found
        if found and (asked := ledger().approvals.waiting(found.id)):
            if not (asked.frozen and override):
                return found
            await _go_past(run_id, asked.id, override, by)
        if found is None and await _is_over(run_id):
            return ledger().releases.by_run(run_id)
        await asyncio.sleep(POLL)
    return ledger().releases.by_run(run_id)


async def _go_past(run_id: str, approval_id: str, override: str, by: str) -> None:
    """Approve with the reason that a person gave before the night began."""
    ledger().approvals.decide(approval_id, "approved", by=by, reason=override, via="nightly")
    async with get_client() as client:
        run = await client.read_flow_run(UUID(run_id))
        if run.state and run.state.is_paused():
            await client.resume_flow_run(run.id, {"decision": "approve", "by": by, "reason": override})


async def _is_over(run_id: str) -> bool:
    async with get_client() as client:
        run = await client.read_flow_run(UUID(run_id))
    return run.state is not None and run.state.is_final()


@task(name="summary", task_run_name="summary", cache_policy=NO_CACHE)
async def summarize(all_: list[Night], override: str, by: str) -> None:
    """What went out, what did not, and why: an artifact of the run."""
    await acreate_markdown_artifact(
        key="nightly", markdown=nightly.night_markdown(all_, override, by), description="what the night released"
    )
