"""Nightly release: check the head of each app, release it and follow the release, publish a summary."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.deployments import arun_deployment
from prefect.runtime import flow_run

from headway.domain import deployments, freeze_windows
from headway.domain.approvals import Decision
from headway.domain.errors import HeadwayError
from headway.domain.principal import Principal
from headway.ledger import AppRecord, Ledger, ReleaseRecord
from headway.policy import nightly
from headway.policy.approvals import decide
from headway.policy.nightly import NightlyResult
from headway.scm.branch_head import head_of
from headway.system.os_user import home_owner
from headway.system.paths import home
from tasks.requester import requester

__all__ = ["check_head", "registered_apps", "release_head", "summarize"]

DEADLINE = 4 * 3600.0  # seconds that a release is followed
POLL = 2.0  # seconds


def registered_apps(ledger: Ledger, only: list[str] | None) -> list[AppRecord]:
    """The registered apps, or those named. Raises NotFound."""
    return [ledger.apps.get(name) for name in only] if only else ledger.apps.all()


@task(task_run_name="look at {app.name}", cache_policy=NO_CACHE)
async def check_head(ledger: Ledger, app: AppRecord, override: str) -> NightlyResult:
    """Decide whether the head of the app's branch is released, and if not, why."""
    try:
        _, head, settings = await asyncio.to_thread(head_of, app.repo, home() / "workspaces", app.branch)
    except HeadwayError as error:
        return NightlyResult(app=app.name, outcome="failed", why=error.what)
    path = settings.release_path()
    if settings.app != app.name:
        why = f"its headway.yaml is that of {settings.app}"
        return NightlyResult(app=app.name, outcome="not released", sha=head, why=why)
    if not path:
        return NightlyResult(app=app.name, outcome="not released", sha=head, why="it has no environment")
    live = ledger.rollouts.live(app.name, path[-1])
    sha = ledger.revisions.find(app.name, live, environment=path[-1])[0].sha if live else None
    closed = freeze_windows.closed(settings.environment(path[-1]).freeze, datetime.now(UTC))
    last = ledger.releases.by_commit(app.name, head)
    refusal = nightly.nightly_refusal(head, sha, last, closed, override)
    get_run_logger().info("%s %s: %s", app.name, head[:7], refusal or "is released")
    outcome: Literal["released", "not released"] = "not released" if refusal else "released"
    return NightlyResult(app=app.name, outcome=outcome, sha=head, why=refusal.what if refusal else "")


@task(task_run_name="release {app.name}", cache_policy=NO_CACHE)
async def release_head(ledger: Ledger, app: AppRecord, found: NightlyResult, override: str, by: str) -> NightlyResult:
    """Release the head and follow the release until it ends, or waits for a person."""
    if found.outcome != "released":
        return found
    run = await arun_deployment(
        deployments.RELEASE,
        parameters={"repo": app.repo, "ref": found.sha, "by": by},
        timeout=0,
        as_subflow=False,
        idempotency_key=f"nightly-{flow_run.get_id()}-{app.name}",
    )
    ended = await _follow(ledger, str(run.id), override)
    succeeded = ended is not None and ended.state == "succeeded"
    words = f"{ended.name} {ended.state}: {ended.reason}".rstrip(": ") if ended else "its run ended before it began"
    return found.model_copy(update={"outcome": "released" if succeeded else "failed", "why": words})


async def _follow(ledger: Ledger, run_id: str, override: str) -> ReleaseRecord | None:
    """The release of a run once it has ended or waits for a person; None if the run ended without a release."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = ledger.releases.by_run(run_id)
        if found and not found.open:
            return found
        if found and (request := ledger.approvals.waiting(found.id)):
            if not (request.frozen and override):
                return found
            _override_freeze(ledger, request.id, override)
        if found is None and await _is_over(run_id):
            return ledger.releases.by_run(run_id)
        await asyncio.sleep(POLL)
    return ledger.releases.by_run(run_id)


def _override_freeze(ledger: Ledger, approval_id: str, override: str) -> None:
    """Approve a release in a freeze, with the reason that was given to the nightly run. `headway up` resumes it."""
    principal = requester(ledger) or Principal(kind="service", name="nightly")
    decision = Decision(principal=principal, decision="approved", reason=override, via="nightly")
    decide(ledger, home_owner(home()), approval_id, decision)


async def _is_over(run_id: str) -> bool:
    async with get_client() as client:
        run = await client.read_flow_run(UUID(run_id))
    return run.state is not None and run.state.is_final()


@task(name="summary", task_run_name="summary", cache_policy=NO_CACHE)
async def summarize(nights: list[NightlyResult], override: str, by: str) -> None:
    """Publish what was released, what was not, and why."""
    await acreate_markdown_artifact(
        key="nightly", markdown=nightly.nightly_markdown(nights, override, by), description="what the night released"
    )
