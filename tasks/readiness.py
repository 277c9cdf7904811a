"""The checklist of readiness for production, assessed for one release and one environment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import acreate_table_artifact

from blocks import loading
from headway.config import Settings
from headway.domain.errors import HeadwayError, MigrationRefused
from headway.domain.plan import Rehearse
from headway.domain.readiness import Finding, failed, passed
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import ReleaseRecord
from headway.policy.readiness import endpoint_checks, repository_checks, vulnerability_scan
from headway.policy.readiness.checklist import Result, assess, counted
from tasks.approval_evidence import planned
from tasks.release_record import ledger, stage
from tasks.run_results import once_per_run

__all__ = ["readiness"]

LOOKED_AT = 100  # lines of an app's log


@task(
    name="readiness",
    task_run_name="readiness for {spec.environment}",
    persist_result=True,
    cache_policy=once_per_run("spec.environment"),
)
async def readiness(release: ReleaseRecord, source: Source, settings: Settings, spec: LaunchSpec) -> list[Result]:
    """Verify what can be verified: in the repository, where the release is staged, in the ledger. Nothing when the
    environment asks for nothing.
    """
    required = settings.environment(spec.environment).readiness
    if not required:
        return []
    with stage(release, f"{spec.environment} readiness") as going_on:
        tree = Path(source.workspace)
        found = await asyncio.to_thread(repository_checks.examine, tree, settings, spec.environment)
        if scanned := await vulnerability_scan.examine(tree):
            found["vulnerabilities"] = scanned
        found = await _staged(release, settings, spec) | found  # what the environment has itself counts more
        found |= {
            "previous": await _previous(release, spec),
            "schema": await _schema(release, source, spec),
            "rehearsed": _rehearsed(release, spec),
        }
        results = assess(found, settings.readiness.attest, required, datetime.now(UTC).date())
        going_on.detail = counted(results)
        await acreate_table_artifact(
            key=f"readiness-{release.app}-{spec.environment}",
            table=[one.row for one in results],
            description=f"readiness of {release.name} for {spec.environment}",
        )
        return results


async def _staged(release: ReleaseRecord, settings: Settings, spec: LaunchSpec) -> dict[str, Finding]:
    """What the environment before this one shows, where the same artifact is live. Nobody else's is asked."""
    path = settings.release_path(spec.environment)
    before = path[-2] if len(path) > 1 else None
    live = ledger().rollouts.live(release.app, before) if before else None
    if before is None or live is None:
        return {}
    revision, there = ledger().revisions.find(release.app, live, environment=before)
    if revision.digest != spec.artifact.digest:
        return {}
    try:
        target = await loading.load_target(there.target)
        url = (await asyncio.to_thread(target.observe, release.app)).url
        lines = await asyncio.to_thread(lambda: list(target.logs(release.app, live, lines=LOOKED_AT)))
    except HeadwayError as error:
        return {"health": failed(f"{before}: {error.what}")}
    if url is None:
        return {}
    found = await endpoint_checks.examine(
        url,
        health=there.health.path,
        detailed=there.detailed,
        protected=settings.readiness.protected,
        headers=target.request_headers,
    )
    if said := endpoint_checks.logs(lines):
        found["logs"] = said
    return found


async def _previous(release: ReleaseRecord, spec: LaunchSpec) -> Finding:
    live = ledger().rollouts.live(release.app, spec.environment)
    if live is None:
        return passed("nothing is live here yet")
    _, there = ledger().revisions.find(release.app, live, environment=spec.environment)
    try:
        target = await loading.load_target(there.target)
        lost = await asyncio.to_thread(target.missing, there)
    except HeadwayError as error:
        return failed(error.what)
    return failed(f"{live}: {lost}") if lost else passed(f"{live} can be had")


async def _schema(release: ReleaseRecord, source: Source, spec: LaunchSpec) -> Finding:
    try:
        decision = await planned(release.app, source, spec)
    except MigrationRefused as refused:
        return failed(refused.what.splitlines()[0])
    if decision.kind == "contract":
        return passed(f"{decision}: not before the rollback window is over")
    return passed(str(decision))


def _rehearsed(release: ReleaseRecord, spec: LaunchSpec) -> Finding:
    """Whether a rollout of this very release has tried the way back somewhere before."""
    for rollout in ledger().rollouts.by_release(release.id):
        if rollout.environment == spec.environment:
            continue
        for step in ledger().rollouts.steps(rollout.id):
            if isinstance(rollout.plan.steps[step.position], Rehearse) and step.outcome == "done":
                return passed(f"{rollout.environment}: {step.detail}")
    return failed("no environment before has tried it: `rehearse` in its canary or blue_green does")
