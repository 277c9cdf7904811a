"""Where a release waits: for a person, or for its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import count
from types import MappingProxyType
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from headway import config
from headway.domain import freeze_windows
from headway.domain.errors import EnvironmentLocked, Expired, HeadwayError, LockLost, Rejected, Superseded
from headway.domain.events import NOTHING
from headway.domain.plan import OperatorCommand
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import ApprovalRecord, Lock, ReleaseRecord
from headway.ledger.records import FORK
from headway.policy.readiness.checklist import Result, unready
from headway.rollout.markdown import evidence_markdown
from tasks.approval_evidence import evidence
from tasks.release_record import ledger, skip_stage, stage, wait_for_person

__all__ = ["Approval", "approval", "give_order", "held", "hold", "let_in", "thaw", "while_newest"]

LEASE = 30.0  # seconds; a holder that died is found out after this long
RENEWALS = 6  # within a lease: some may fail
QUEUE_POLL = 0.5  # seconds
NEWER_POLL = 0.5  # seconds
QUEUE_DEADLINE = 4 * 3600.0  # seconds; longer than any rollout's progress deadline lets it run
GRACE = timedelta(days=30)  # the sweep ends what has expired; Prefect's own timeout would fail the run without a word


@asynccontextmanager
async def while_newest(release: ReleaseRecord) -> AsyncIterator[None]:
    """What is done inside is broken off when a newer commit is pushed. Raises Superseded.

    Not for what changes an environment: that is never broken off by a push.
    """
    this = asyncio.current_task()
    assert this is not None
    _refuse_followed(release)

    followed = False

    async def watch() -> None:
        nonlocal followed
        while not followed:
            await asyncio.sleep(NEWER_POLL)
            with suppress(HeadwayError):  # a ledger that is busy just now is asked again
                followed = await asyncio.to_thread(ledger().deliveries.successor, release.flow_run_id or "") is not None
        this.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if followed and this.uncancel() == 0:
            _refuse_followed(release)
        raise
    finally:
        watching.cancel()


def _refuse_followed(release: ReleaseRecord) -> None:
    """Raises Superseded when a newer commit was pushed."""
    newer = ledger().deliveries.successor(release.flow_run_id or "")
    if newer is None:
        return
    run = newer.flow_run_id and ledger().releases.by_run(newer.flow_run_id)
    by = run.name if run else f"the run {newer.flow_run_id}" if newer.flow_run_id else "a run that is about to start"
    if newer.sha == NOTHING:
        raise Superseded(f"pull request {newer.ref} was closed", "open it again, and it starts again")
    raise Superseded(
        f"superseded by {by}: {(newer.sha or '')[:7]} was pushed", "the newer one has what it has, or more"
    )


class Approval(RunInput):
    """The form in the Prefect UI. `decision` has no default: a run resumed past the form fails closed."""

    decision: Literal["approve", "reject"]
    by: str = Field(min_length=1, description="who decides: your name or mail")
    reason: str = Field(default="", description="kept in the record")


@task(name="request approval", task_run_name="request approval for {spec.environment}", cache_policy=NO_CACHE)
async def request_approval(
    release: ReleaseRecord, source: Source, rules: config.Environment, spec: LaunchSpec, ready: list[Result]
) -> ApprovalRecord:
    """Enter in the ledger what is to be approved: this digest with this configuration, on this evidence."""
    rule = rules.approval or config.Approval()
    return ledger().approvals.request(
        release.id,
        spec.environment,
        spec.revision(release.app, source.sha).id,
        evidence=await evidence(release, source, rules, spec, ready),
        expires_at=datetime.now(UTC) + timedelta(seconds=rule.expires),
        by=list(rule.by),
        not_author=rule.not_author,
    )


@task(name="request thaw", task_run_name="is {spec.environment} frozen?", cache_policy=NO_CACHE)
async def request_thaw(
    release: ReleaseRecord, source: Source, rules: config.Environment, spec: LaunchSpec
) -> ApprovalRecord | None:
    """Enter in the ledger that this revision waits for the end of a freeze; None when nothing is frozen."""
    closed = freeze_windows.closed(rules.freeze, datetime.now(UTC))
    if closed is None:
        return None
    return ledger().approvals.request(
        release.id,
        spec.environment,
        spec.revision(release.app, source.sha).id,
        evidence=await evidence(release, source, rules, spec),
        expires_at=closed.until,
        by=list(rules.approval.by) if rules.approval else [],
        not_author=False,
        asks=f"freeze until {closed.until:%Y-%m-%d %H:%M}",
    )


async def approval(
    release: ReleaseRecord,
    source: Source,
    rules: config.Environment,
    spec: LaunchSpec,
    ready: list[Result],
    *,
    skip: bool,
) -> None:
    """Wait until a person has approved this very revision for its environment, or has accepted that it is not ready.

    The run is suspended meanwhile: no process, no worker slot, for days. It comes back from the top and finds here
    what the ledger says. Raises Rejected or Expired.
    """
    name = f"{spec.environment} approval"
    if (skip or rules.approval is None) and not unready(ready):
        skip_stage(release, name, "--yes" if skip else "approval: false")
    elif asked := await _wait_for_word(release, name, lambda: request_approval(release, source, rules, spec, ready)):
        _settled(release, name, asked)


async def thaw(release: ReleaseRecord, source: Source, rules: config.Environment, spec: LaunchSpec) -> None:
    """Wait, suspended, until the environment is not frozen any more, or a person lets this revision through.

    Of the releases that wait for the end of a freeze only the newest goes on. Raises Rejected or Superseded.
    """
    if not rules.freeze or ledger().rollouts.is_accepted(release.id, spec.environment):
        return
    name = f"{spec.environment} freeze"
    asked = await _wait_for_word(release, name, lambda: request_thaw(release, source, rules, spec))
    if asked and asked.state != "expired":
        _settled(release, name, asked)
    elif newer := ledger().approvals.newer_release_at_freeze(release.id, spec.environment):
        raise Superseded(
            f"{spec.environment}: superseded by {newer.name}", f"it contains what {release.name} has, or more"
        )
    else:
        skip_stage(release, name, "not frozen")


async def let_in(release: ReleaseRecord, source: Source, said: config.Settings) -> None:
    """Wait, suspended, until a person has said that this commit of a stranger may run here; once for each commit.

    Raises Rejected, Expired, or Superseded when a newer commit came or the pull request was closed.
    """
    name = "approval of the fork"
    place = said.environments.get(config.PREVIEW)
    rules = (place and place.approval) or config.Approval()
    known = ledger().approvals.fork_approval(release.app, source.sha)
    if known and known.release_id != release.id:
        skip_stage(release, name, f"approved by {known.decided_by}")
    elif asked := await _wait_for_word(release, name, lambda: request_entry(release, source, rules)):
        _settled(release, name, asked)


@task(name="request entry", task_run_name="may this fork run?", cache_policy=NO_CACHE)
async def request_entry(release: ReleaseRecord, source: Source, rules: config.Approval) -> ApprovalRecord:
    """Enter in the ledger that the commit of a stranger waits for somebody who has looked at it."""
    return ledger().approvals.request(
        release.id,
        config.PREVIEW,
        source.sha[:12],
        evidence={"release": release.name, "sha": source.sha, "author": source.author, "subject": source.subject},
        expires_at=datetime.now(UTC) + timedelta(seconds=rules.expires),
        by=list(rules.by),
        not_author=rules.not_author,
        asks=FORK,
    )


async def _wait_for_word(
    release: ReleaseRecord, name: str, ask: Callable[[], Awaitable[ApprovalRecord | None]]
) -> ApprovalRecord | None:
    """Suspended until somebody has decided, or nothing is asked any more."""
    refusal = ""
    _refuse_followed(release)
    for attempt in count():
        asked = await ask()
        if asked is None or asked.state != "waiting":
            return asked
        wait_for_person(release, name)
        form: Any = Approval.with_initial_data(description=evidence_markdown(asked, refusal))
        answer: Approval = await suspend_flow_run(
            wait_for_input=form,
            timeout=int((asked.expires_at - datetime.now(UTC) + GRACE).total_seconds()),
            key=f"approve-{asked.id}-{attempt}",
        )
        refusal = _decide(asked, answer)
    return None


def _decide(asked: ApprovalRecord, answer: Approval) -> str:
    """Enter the answer; returns why it does not count, when it does not."""
    if ledger().approvals.get(asked.id).state != "waiting":
        return ""
    decision: Literal["approved", "rejected"] = "approved" if answer.decision == "approve" else "rejected"
    try:
        ledger().approvals.decide(asked.id, decision, by=answer.by, reason=answer.reason, via="ui")
    except HeadwayError as refused:
        get_run_logger().warning("%s", refused)
        return str(refused)
    return ""


def _settled(release: ReleaseRecord, name: str, asked: ApprovalRecord) -> None:
    word = f"{asked.state} by {asked.decided_by}" + (f": {asked.reason}" if asked.reason else "")
    with stage(release, name) as going_on:
        going_on.detail = word
        if asked.state == "rejected":
            raise Rejected(f"{asked.environment}: {word}")
        if asked.state != "approved":
            raise Expired(f"{asked.environment}: nobody decided before {asked.expires_at:%Y-%m-%d %H:%M} UTC")


@task(name="give order", task_run_name="{kind} {app} {environment}", cache_policy=NO_CACHE)
async def give_order(
    app: str, environment: str, kind: Literal["promote", "skip", "abort"], by: str, reason: str
) -> None:
    """Enter it in the ledger, where the rollout looks for it. Raises NotFound when none is under way."""
    rollout = ledger().commands.give(app, environment, OperatorCommand(kind=kind, by=by, reason=reason), via="ui")
    get_run_logger().info("%s %s: %s: %s", app, environment, rollout.plan.new, kind)


HELD: ContextVar[Mapping[tuple[str, str], Lock]] = ContextVar("held", default=MappingProxyType({}))  # immutable


@asynccontextmanager
async def hold(
    app: str, environment: str, *, holder: str, revision: str, release: ReleaseRecord | None, patient: bool = False
) -> AsyncIterator[Lock]:
    """Be the one writer of an environment, in turn. Inside a rollout that holds it already, it is the same lock.

    A release queues; a newer one of the same app that queues too takes its place (Superseded). Without a release there
    is no queue: somebody who wants to roll back now is told at once who is at it (EnvironmentLocked), unless `patient`.
    """
    if mine := HELD.get().get((app, environment)):
        yield mine
        return
    lock = await _queue(app, environment, holder, revision, release, patient=patient)
    renewal = asyncio.create_task(_keep(lock))
    token = HELD.set({**HELD.get(), (app, environment): lock})
    try:
        yield lock
    finally:
        HELD.reset(token)
        renewal.cancel()
        ledger().locks.release(lock)


def held(app: str, environment: str) -> Lock:
    """The lock that the surrounding `hold` got."""
    return HELD.get()[app, environment]


async def _queue(
    app: str, environment: str, holder: str, revision: str, release: ReleaseRecord | None, *, patient: bool
) -> Lock:
    deadline = time.monotonic() + QUEUE_DEADLINE
    told = ""
    if release is not None:
        ledger().queue.enter(release.id, app, environment)
    try:
        while True:
            if release is not None:
                _refuse_followed(release)
            if release is not None and (newer := ledger().queue.newer_release(release.id, app, environment)):
                raise Superseded(
                    f"{environment}: superseded by {newer.name}", f"it contains what {release.name} has, or more"
                )
            lock = ledger().locks.acquire(app, environment, holder=holder, revision=revision, lease=LEASE)
            if lock is not None:
                return lock
            by = ledger().locks.holder(app, environment)
            words = (
                f"{environment} is held by {by.holder} for {by.revision}" if by else f"{environment} is being let go"
            )
            if (release is None and not patient) or time.monotonic() > deadline:
                raise EnvironmentLocked(
                    words, "cancel that run, and it brings the environment back itself; or wait for it"
                )
            if words != told:
                get_run_logger().info("waiting: %s", words)
                told = words
            await asyncio.sleep(QUEUE_POLL)
    finally:
        if release is not None:
            ledger().queue.leave(release.id, app, environment)


async def _keep(lock: Lock) -> None:
    """Renew the lease until told to stop. A lock that is lost is found out by the next word in the journal.

    A ledger that cannot be written just now is asked again: there is time until the lease has run out.
    """
    while True:
        await asyncio.sleep(LEASE / RENEWALS)
        try:
            await asyncio.to_thread(ledger().locks.renew, lock)
        except LockLost as lost:
            get_run_logger().error("%s", lost)
            return
        except HeadwayError as error:
            get_run_logger().warning("the lock is not renewed yet: %s", error)
