"""The production readiness checklist, assessed for one release and one environment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from blocks import loading
from headway.config import Settings
from headway.domain.errors import HeadwayError, MigrationRefused
from headway.domain.plan import Rehearse
from headway.domain.readiness import Finding, failed, passed
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.policy.readiness import endpoint_checks, repository_checks, vulnerability_scan
from headway.policy.readiness.checklist import Result, assess, counted
from headway.system.runners import runner
from tasks.approval_evidence import schema_decision
from tasks.release_record import ReleaseSession

__all__ = ["readiness"]

LOG_LINES = 100


@task(name="readiness", task_run_name="readiness for {spec.environment}", cache_policy=NO_CACHE)
async def readiness(release: ReleaseSession, source: Source, settings: Settings, spec: LaunchSpec) -> list[Result]:
    """Assess the checklist from the repository, the environment before this one, and the ledger.

    Returns an empty list when the environment requires no item. It is assessed once: a run that is resumed gets the
    result that was approved.
    """
    required = settings.environment(spec.environment).readiness
    if not required:
        return []
    inputs, name = release.ledger.inputs, f"readiness {spec.environment}"
    if stored := inputs.get(release.record.id, name):
        return [Result(*row) for row in stored["results"]]
    with release.stage(f"{spec.environment} readiness") as stage:
        tree = Path(source.workspace)
        found = await asyncio.to_thread(repository_checks.examine, tree, settings, spec.environment)
        if scanned := await vulnerability_scan.examine(tree, runner(trusted=source.trusted)):
            found["vulnerabilities"] = scanned
        found = await _staged(release, settings, spec) | found  # findings of the environment itself take precedence
        found |= {
            "previous": await _previous(release, spec),
            "schema": await _schema(release, source, spec),
            "rehearsed": _rehearsed(release, spec),
        }
        results = assess(found, settings.readiness.attest, required, datetime.now(UTC).date())
        stage.detail = counted(results)
        await acreate_table_artifact(
            key=f"readiness-{release.record.app}-{spec.environment}",
            table=[one.row for one in results],
            description=f"readiness of {release.record.name} for {spec.environment}",
        )
        inputs.fix(release.record.id, name, {"results": [list(one) for one in results]})
        return results


async def _staged(release: ReleaseSession, settings: Settings, spec: LaunchSpec) -> dict[str, Finding]:
    """Findings from the environment before this one, if the same artifact is live there."""
    ledger, app = release.ledger, release.record.app
    path = settings.release_path(spec.environment)
    before = path[-2] if len(path) > 1 else None
    live = ledger.rollouts.live(app, before) if before else None
    if before is None or live is None:
        return {}
    revision, staged = ledger.revisions.find(app, live, environment=before)
    if revision.digest != spec.artifact.digest:
        return {}
    try:
        target = await loading.load_target(staged.target)
        url = (await asyncio.to_thread(target.observe, app)).url
        lines = await asyncio.to_thread(lambda: list(target.logs(app, live, lines=LOG_LINES)))
    except HeadwayError as error:
        return {"health": failed(f"{before}: {error.what}")}
    if url is None:
        return {}
    found = await endpoint_checks.examine(
        url,
        health=staged.health.path,
        detailed=staged.detailed,
        protected=settings.readiness.protected,
        headers=target.request_headers,
    )
    if finding := endpoint_checks.logs(lines):
        found["logs"] = finding
    return found


async def _previous(release: ReleaseSession, spec: LaunchSpec) -> Finding:
    """Whether the live revision could be launched again, for a rollback."""
    ledger, app = release.ledger, release.record.app
    live = ledger.rollouts.live(app, spec.environment)
    if live is None:
        return passed("nothing is live here yet")
    _, live_spec = ledger.revisions.find(app, live, environment=spec.environment)
    try:
        target = await loading.load_target(live_spec.target)
        lost = await asyncio.to_thread(target.missing, live_spec)
    except HeadwayError as error:
        return failed(error.what)
    return failed(f"{live}: {lost}") if lost else passed(f"{live} can be had")


async def _schema(release: ReleaseSession, source: Source, spec: LaunchSpec) -> Finding:
    try:
        decision = await schema_decision(release.ledger, release.record.app, source, spec)
    except MigrationRefused as refused:
        return failed(refused.what.splitlines()[0])
    if decision.kind == "contract":
        return passed(f"{decision}: not before the rollback window is over")
    return passed(str(decision))


def _rehearsed(release: ReleaseSession, spec: LaunchSpec) -> Finding:
    """Whether a rollout of this release to another environment has rehearsed the rollback."""
    rollouts = release.ledger.rollouts
    for rollout in rollouts.by_release(release.record.id):
        if rollout.environment == spec.environment:
            continue
        for step in rollouts.steps(rollout.id):
            if isinstance(rollout.plan.steps[step.position], Rehearse) and step.outcome == "done":
                return passed(f"{rollout.environment}: {step.detail}")
    return failed("no environment before has tried it: `rehearse` in its canary or blue_green does")
