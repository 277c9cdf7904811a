"""Decisions that a release waits for, suspended: approval, the end of a freeze, a commit from a fork."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from headway import config
from headway.domain import freeze_windows
from headway.domain.approvals import Decision, Verb
from headway.domain.errors import Expired, HeadwayError, Rejected, Superseded, UsageError
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import ApprovalRecord
from headway.ledger.records import APPROVAL, FORK
from headway.policy.approvals import approvals_so_far, changes, decide, no_longer_approved
from headway.policy.readiness.checklist import Result, unready
from headway.rollout.markdown import evidence_markdown
from headway.system.os_user import home_owner
from headway.system.paths import home
from tasks.approval_evidence import evidence
from tasks.release_record import ReleaseSession, is_accepted
from tasks.requester import requester
from tasks.supersede import require_newest, require_nothing_newer_live

__all__ = ["Approval", "still_permitted", "wait_for_approval", "wait_for_fork_approval", "wait_for_thaw"]

GRACE = timedelta(days=30)  # the sweep ends expired requests; Prefect's own timeout would fail the run with no reason


class Approval(RunInput):
    """The form in the Prefect UI. `decision` has no default: resuming the run without the form approves nothing."""

    decision: Literal["approve", "reject"]
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
    if is_accepted(release, spec):
        return
    if rules.approval is None and not unready(ready):
        release.skip_stage(name, "approval: false")
        return
    yes = skip and not unready(ready)
    ask = partial(request_approval, release, source, rules, spec, ready, yes=yes)
    request = await _wait(release, name, spec.environment, ask)
    if request:
        _finish(release, name, request)


@task(name="request approval", task_run_name="request approval for {spec.environment}", cache_policy=NO_CACHE)
async def request_approval(
    release: ReleaseSession,
    source: Source,
    rules: config.Environment,
    spec: LaunchSpec,
    ready: list[Result],
    *,
    yes: bool = False,
) -> ApprovalRecord:
    """Record what is to be approved: this digest with this configuration, and the evidence for it.

    A request that was made before is void when that has changed. With `yes`, who requested the release approves it.
    """
    rule = rules.approval or config.Approval()
    request = _request(
        release,
        await evidence(release, source, rules, spec, ready),
        (spec.environment, spec.revision(release.record.app, source.sha).id, APPROVAL),
        expires_at=datetime.now(UTC) + timedelta(seconds=rule.expires),
        by=list(rule.by),
        not_author=rule.not_author,
        count=rule.count,
    )
    return _approve_own(release, request) if yes and request.state == "waiting" else request


async def wait_for_thaw(release: ReleaseSession, source: Source, rules: config.Environment, spec: LaunchSpec) -> None:
    """Wait, suspended, until the freeze of the environment ends, or a person approves this revision in spite of it.

    Of the releases that wait for the end of a freeze, the newest continues. Raises Rejected, Superseded.
    """
    ledger, record = release.ledger, release.record
    if not rules.freeze or is_accepted(release, spec):
        return
    name = f"{spec.environment} freeze"
    request = await _wait(release, name, spec.environment, partial(request_thaw, release, source, rules, spec))
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
    return _request(
        release,
        await evidence(release, source, rules, spec),
        (
            spec.environment,
            spec.revision(release.record.app, source.sha).id,
            f"freeze until {frozen.until:%Y-%m-%d %H:%M}",
        ),
        expires_at=frozen.until,
        by=list(rules.freeze_override or (rules.approval.by if rules.approval else ())),
        not_author=False,
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
        return
    ask = partial(request_fork_approval, release, source, rules)
    if request := await _wait(release, name, config.PREVIEW, ask):
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
        count=rules.count,
        asks=FORK,
    )


async def still_permitted(release: ReleaseSession, source: Source, rules: config.Environment, spec: LaunchSpec) -> bool:
    """Whether the approvals of this revision are valid now, right before its rollout begins.

    Those that are not become void: what is live or the evidence has changed, or who approved may not any more.
    """
    approvals = release.ledger.approvals
    given = approvals.approved(release.record.id, spec.environment, spec.revision(release.record.app, source.sha).id)
    shown = await evidence(release, source, rules, spec) if given else {}
    void = {one.id: no_longer_approved(release.ledger, home_owner(home()), one, shown) for one in given}
    for request, refusal in void.items():
        if refusal:
            get_run_logger().warning("the approval is void, and requested again: %s", refusal)
            approvals.void(request, refusal.what)
    return not any(void.values())


def _request(release: ReleaseSession, shown: dict[str, Any], key: tuple[str, str, str], **rule: Any) -> ApprovalRecord:
    """The request for this environment, revision and question; a new one when the evidence of the last has changed."""
    approvals, (environment, revision, asks) = release.ledger.approvals, key
    last = approvals.latest(release.record.id, *key)
    if last and last.state in ("waiting", "approved") and (changed := changes(last, shown)):
        get_run_logger().warning("the approval is void, and requested again: %s", changed)
        approvals.void(last.id, changed)
        shown = shown | {"again": changed}
    elif last and last.state == "void":
        shown = shown | {"again": last.reason}
    return approvals.request(release.record.id, environment, revision, evidence=shown, asks=asks, **rule)


def _approve_own(release: ReleaseSession, request: ApprovalRecord) -> ApprovalRecord:
    """Approve a release for the principal who requested it with --yes; it waits if that does not suffice."""
    ledger, person = release.ledger, requester(release.ledger)
    if person is None:
        get_run_logger().warning("--yes approves nothing: no person started this run")
        return request
    own = Decision(principal=person, decision="approved", reason="--yes", via="--yes")
    try:
        return decide(ledger, home_owner(home()), request.id, own)
    except UsageError as refused:
        get_run_logger().warning("--yes: %s", refused)
        return request


async def _wait(
    release: ReleaseSession, name: str, environment: str, ask: Callable[[], Awaitable[ApprovalRecord | None]]
) -> ApprovalRecord | None:
    """Suspend the run until the request is closed, and return it; None when nothing has to be decided."""
    refusal = ""
    require_newest(release)
    while True:
        require_nothing_newer_live(release, environment)
        request = await ask()
        if request is None or request.state != "waiting":
            release.ledger.releases.set_waiting(release.record.id, waiting=False)
            return request
        release.wait_for_person(name)
        so_far = approvals_so_far(release.ledger, home_owner(home()), request)
        form: Any = Approval.with_initial_data(description=evidence_markdown(request, refusal, so_far))
        answer: Approval = await suspend_flow_run(
            wait_for_input=form,
            timeout=int((request.expires_at - datetime.now(UTC) + GRACE).total_seconds()),
            key=f"approval-{request.id}-{request.form}",
        )
        refusal = _record_answer(release, request, answer)


def _record_answer(release: ReleaseSession, request: ApprovalRecord, answer: Approval) -> str:
    """Record the answer of the form, for the person who pressed; returns the reason when it is refused.

    The next form has another number: no answer counts twice, and none for another person.
    """
    ledger, run = release.ledger, release.record.flow_run_id or ""
    verb: Verb = "approved" if answer.decision == "approve" else "rejected"
    person = ledger.prefect_requests.last_resume(run, request.form_after)
    refusal = ""
    try:
        if person is None:
            raise UsageError(
                "it is not known who decided: the request did not come through the sign-in, or several people pressed "
                "at once",
                "decide again",
            )
        if ledger.approvals.get(request.id).state == "waiting":
            decision = Decision(principal=person, decision=verb, reason=answer.reason, via="ui")
            decide(ledger, home_owner(home()), request.id, decision)
    except HeadwayError as refused:
        get_run_logger().warning("%s", refused)
        refusal = str(refused)
    ledger.approvals.close_form(request)
    return refusal


def _finish(release: ReleaseSession, name: str, request: ApprovalRecord) -> None:
    """Record the decision as a stage. Raises Rejected, Expired."""
    decision = f"{request.state} by {request.decided_by}" + (f": {request.reason}" if request.reason else "")
    with release.stage(name) as stage:
        stage.detail = decision
        if request.state == "rejected":
            raise Rejected(f"{request.environment}: {decision}")
        if request.state != "approved":
            raise Expired(f"{request.environment}: no decision before {request.expires_at:%Y-%m-%d %H:%M} UTC")
