"""Decisions that a release waits for, suspended: approval, the end of a freeze, a commit from a fork."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from headway import config
from headway.domain import freeze_windows
from headway.domain.errors import Expired, HeadwayError, Rejected, Superseded
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import ApprovalRecord, Ledger
from headway.ledger.records import FORK
from headway.policy.readiness.checklist import Result, unready
from headway.rollout.markdown import evidence_markdown
from tasks.approval_evidence import evidence
from tasks.release_record import ReleaseSession, is_accepted
from tasks.supersede import require_newest

__all__ = ["Approval", "wait_for_approval", "wait_for_fork_approval", "wait_for_thaw"]

GRACE = timedelta(days=30)  # the sweep ends expired requests; Prefect's own timeout would fail the run with no reason


class Approval(RunInput):
    """The form in the Prefect UI. `decision` has no default: resuming the run without the form approves nothing."""

    decision: Literal["approve", "reject"]
    by: str = Field(min_length=1, description="who decides: your name or mail")
    reason: str = Field(default="", description="kept in the record")


async def wait_for_approval(
    release: ReleaseSession,
    source: Source,
    rules: config.Environment,
    spec: LaunchSpec,
    ready: list[Result],
    *,
    skip: bool,
) -> None:
    """Wait until a person approves this revision for its environment, or accepts that it is not ready for production.

    The run is suspended: it uses no process and no worker slot. When it is resumed it starts from the top, and finds
    the decision in the ledger. Raises Rejected, Expired.
    """
    name = f"{spec.environment} approval"
    if (skip or rules.approval is None) and not unready(ready):
        release.skip_stage(name, "--yes" if skip else "approval: false")
        return
    request = await _wait(release, name, lambda: request_approval(release, source, rules, spec, ready))
    if request:
        _finish(release, name, request)


@task(name="request approval", task_run_name="request approval for {spec.environment}", cache_policy=NO_CACHE)
async def request_approval(
    release: ReleaseSession, source: Source, rules: config.Environment, spec: LaunchSpec, ready: list[Result]
) -> ApprovalRecord:
    """Record what is to be approved: this digest with this configuration, and the evidence for it."""
    rule = rules.approval or config.Approval()
    return release.ledger.approvals.request(
        release.record.id,
        spec.environment,
        spec.revision(release.record.app, source.sha).id,
        evidence=await evidence(release, source, rules, spec, ready),
        expires_at=datetime.now(UTC) + timedelta(seconds=rule.expires),
        by=list(rule.by),
        not_author=rule.not_author,
    )


async def wait_for_thaw(release: ReleaseSession, source: Source, rules: config.Environment, spec: LaunchSpec) -> None:
    """Wait, suspended, until the freeze of the environment ends, or a person approves this revision in spite of it.

    Of the releases that wait for the end of a freeze, the newest continues. Raises Rejected, Superseded.
    """
    ledger, record = release.ledger, release.record
    if not rules.freeze or is_accepted(release, spec):
        return
    name = f"{spec.environment} freeze"
    request = await _wait(release, name, lambda: request_thaw(release, source, rules, spec))
    if request and request.state != "expired":
        _finish(release, name, request)
    elif newer := ledger.approvals.newer_release_at_freeze(record.id, spec.environment):
        raise Superseded(
            f"{spec.environment}: superseded by {newer.name}", f"it contains what {record.name} has, or more"
        )
    else:
        release.skip_stage(name, "not frozen")


@task(name="request thaw", task_run_name="is {spec.environment} frozen?", cache_policy=NO_CACHE)
async def request_thaw(
    release: ReleaseSession, source: Source, rules: config.Environment, spec: LaunchSpec
) -> ApprovalRecord | None:
    """Record that this revision waits for the end of a freeze; None when the environment is not frozen."""
    frozen = freeze_windows.closed(rules.freeze, datetime.now(UTC))
    if frozen is None:
        return None
    return release.ledger.approvals.request(
        release.record.id,
        spec.environment,
        spec.revision(release.record.app, source.sha).id,
        evidence=await evidence(release, source, rules, spec),
        expires_at=frozen.until,
        by=list(rules.approval.by) if rules.approval else [],
        not_author=False,
        asks=f"freeze until {frozen.until:%Y-%m-%d %H:%M}",
    )


async def wait_for_fork_approval(release: ReleaseSession, source: Source, settings: config.Settings) -> None:
    """Wait, suspended, until a person approves that this commit of a fork may run here; once for each commit.

    `settings` are those of the base branch. Raises Rejected, Expired, or Superseded when a newer commit was pushed or
    the pull request was closed.
    """
    name = "approval of the fork"
    environment = settings.environments.get(config.PREVIEW)
    rules = (environment and environment.approval) or config.Approval()
    known = release.ledger.approvals.fork_approval(release.record.app, source.sha)
    if known and known.release_id != release.record.id:
        release.skip_stage(name, f"approved by {known.decided_by}")
    elif request := await _wait(release, name, lambda: request_fork_approval(release, source, rules)):
        _finish(release, name, request)


@task(name="request entry", task_run_name="may this fork run?", cache_policy=NO_CACHE)
async def request_fork_approval(release: ReleaseSession, source: Source, rules: config.Approval) -> ApprovalRecord:
    """Record that the commit of a fork waits for a person who has read it."""
    facts = {"release": release.record.name, "sha": source.sha, "author": source.author, "subject": source.subject}
    return release.ledger.approvals.request(
        release.record.id,
        config.PREVIEW,
        source.sha[:12],
        evidence=facts,
        expires_at=datetime.now(UTC) + timedelta(seconds=rules.expires),
        by=list(rules.by),
        not_author=rules.not_author,
        asks=FORK,
    )


async def _wait(
    release: ReleaseSession, name: str, ask: Callable[[], Awaitable[ApprovalRecord | None]]
) -> ApprovalRecord | None:
    """Suspend the run until the request is closed, and return it; None when nothing has to be decided."""
    refusal = ""
    require_newest(release)
    for attempt in count():
        request = await ask()
        if request is None or request.state != "waiting":
            release.ledger.releases.set_waiting(release.record.id, waiting=False)
            return request
        release.wait_for_person(name)
        form: Any = Approval.with_initial_data(description=evidence_markdown(request, refusal))
        answer: Approval = await suspend_flow_run(
            wait_for_input=form,
            timeout=int((request.expires_at - datetime.now(UTC) + GRACE).total_seconds()),
            key=f"approve-{request.id}-{attempt}",
        )
        refusal = _decide(release.ledger, request, answer)
    return None


def _decide(ledger: Ledger, request: ApprovalRecord, answer: Approval) -> str:
    """Record the answer of the form; returns the reason when it is refused."""
    if ledger.approvals.get(request.id).state != "waiting":
        return ""
    decision: Literal["approved", "rejected"] = "approved" if answer.decision == "approve" else "rejected"
    try:
        ledger.approvals.decide(request.id, decision, by=answer.by, reason=answer.reason, via="ui")
    except HeadwayError as refused:
        get_run_logger().warning("%s", refused)
        return str(refused)
    return ""


def _finish(release: ReleaseSession, name: str, request: ApprovalRecord) -> None:
    """Record the decision as a stage. Raises Rejected, Expired."""
    decision = f"{request.state} by {request.decided_by}" + (f": {request.reason}" if request.reason else "")
    with release.stage(name) as stage:
        stage.detail = decision
        if request.state == "rejected":
            raise Rejected(f"{request.environment}: {decision}")
        if request.state != "approved":
            raise Expired(f"{request.environment}: no decision before {request.expires_at:%Y-%m-%d %H:%M} UTC")
