"""Steps of a rollout: planned from what is live, recorded in the journal, and taken one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import resolve
from headway.config import Environment
from headway.domain.errors import Superseded
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, OperatorCommand, Plan, Step
from headway.domain.ports import MetricSource, Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import RolloutKind, RolloutRecord
from headway.rollout import strategies
from headway.rollout.availability import WITHIN, answered
from headway.rollout.executor import Outcome, RolloutContext, take
from headway.rollout.planning import plan_for
from headway.rollout.step_titles import titles
from tasks.artifacts import draw_verdict
from tasks.environment_lock import EnvironmentSession
from tasks.release_record import ReleaseSession

__all__ = ["RolloutRequest", "has_changed_something", "plan_rollout", "retire_idle", "start_rollout", "take_steps"]


class LedgerJournal:
    """The journal of one rollout, in the ledger. With `supersede`, a newer release in the queue ends the rollout."""

    def __init__(self, session: EnvironmentSession, record: RolloutRecord, *, supersede: bool) -> None:
        self._ledger = session.ledger
        self._token = session.lock.token
        self._record = record
        self._supersede = supersede

    def started(self, index: int, step: Step) -> None:
        self._ledger.rollouts.start_step(self._record, index, step, self._token)

    def measured(self, index: int, measurements: Measurements) -> None:
        self._ledger.readings.add(self._record.id, index, measurements)

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None:
        self._ledger.rollouts.finish_step(self._record, index, outcome, detail, users, self._token)

    def order(self) -> OperatorCommand | None:
        record = self._record
        if self._supersede and record.release_id:
            newer = self._ledger.queue.newer_release(record.release_id, record.app, record.environment)
            if newer is not None:
                raise Superseded(f"{record.environment}: superseded by {newer.name}", "supersede: abort says so")
        return self._ledger.commands.take(record.id)

    def waits(self, question: str, *, blocked: bool = True) -> None:
        if release_id := self._record.release_id:
            self._ledger.stages.set_waiting(release_id, self._record.environment, question)
            self._ledger.releases.set_waiting(release_id, waiting=bool(question) and blocked)


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE)
async def plan_rollout(
    release: ReleaseSession, session: EnvironmentSession, environment: Environment, revision: Revision, spec: LaunchSpec
) -> RolloutContext:
    """Plan the rollout of `revision` from what is live now, and record its start.

    Raises UsageError when the target cannot do what the strategy needs.
    """
    target, log = await session.target(spec.target), get_run_logger()
    stable = session.ledger.rollouts.live(session.app, session.environment)
    planned = await answered(
        lambda: asyncio.to_thread(plan_for, target, environment, revision, spec, stable=stable), on_line=log.info
    )
    for remark in planned.remarks:
        log.info(remark)
    for change in await answered(lambda: asyncio.to_thread(target.compare, revision, spec), on_line=log.info) or ():
        log.info("changes: %s", change.name)
    request = RolloutRequest(
        plan=planned.plan,
        kind="release",
        release_id=release.record.id,
        by=release.record.requested_by,
        progress_deadline=environment.progress_deadline,
        patience=strategies.FOREVER if environment.after_deadline == "wait" else 0.0,
        supersede=environment.supersede == "abort",
    )
    return await start_rollout(session, target, request)


@dataclass(frozen=True, kw_only=True)
class RolloutRequest:
    """A plan, and how to walk it; see RolloutContext for the deadlines."""

    plan: Plan
    kind: RolloutKind
    release_id: str | None
    reason: str = ""
    by: str = ""
    progress_deadline: float = WITHIN
    patience: float = 0.0
    supersede: bool = False
    reading: Measurements | None = None


async def start_rollout(session: EnvironmentSession, target: Target, request: RolloutRequest) -> RolloutContext:
    """Record the start of a rollout, with everything that its steps need. Raises LockLost."""
    plan = request.plan
    for index, step in enumerate(plan.steps, 1):
        get_run_logger().info("%2d. %s", index, step)
    specs, sources = await _resolved_specs(session, plan), await _metric_sources(plan)
    record = session.ledger.rollouts.start(
        request.release_id,
        session.app,
        session.environment,
        plan,
        kind=request.kind,
        reason=request.reason,
        token=session.lock.token,
        by=request.by,
    )
    return RolloutContext(
        record=record,
        target=target,
        specs=specs,
        journal=LedgerJournal(session, record, supersede=request.supersede),
        on_line=_log_line,
        progress_deadline=request.progress_deadline,
        patience=request.patience,
        sources=sources,
        reading=request.reading,
        own=session.own,
    )


async def _resolved_specs(session: EnvironmentSession, plan: Plan) -> Mapping[str, tuple[Revision, LaunchSpec]]:
    """The revisions of a plan with their secrets. A teardown launches nothing: its secrets may be deleted already."""
    specs = {}
    for revision_id in {revision for step in plan.steps if (revision := getattr(step, "revision", None))}:
        revision, spec = session.revision(revision_id)
        specs[revision_id] = revision, spec if plan.strategy == strategies.TEARDOWN else await resolve(spec)
    return specs


async def _metric_sources(plan: Plan) -> Mapping[str, MetricSource]:
    names = {limit.source for step in plan.steps if isinstance(step, Analyze) for limit in step.metrics}
    return {name: await loading.load_metric_source(name) for name in names}


def _log_line(line: str) -> None:
    """Log in the task run of the step that is being taken."""
    get_run_logger().info(line)


async def take_steps(session: EnvironmentSession, context: RolloutContext) -> None:
    """Take every step of the plan, each as a task run with the title of the step, such as `canary 5%`."""
    for index, title in titles(context.plan):
        await take_step.with_options(task_run_name=title)(session, context, index)


@task(cache_policy=NO_CACHE)
async def take_step(session: EnvironmentSession, context: RolloutContext, index: int) -> Outcome:
    """Take one step of the plan, and plot the verdict of an analysis that passed.

    A verdict that ends the rollout is plotted at the end of the release, after the rollback.
    """
    outcome = await take(context, index)
    if isinstance(context.plan.steps[index], Analyze):
        await draw_verdict(session.ledger, context.record)
    return outcome


@task(name="retire", task_run_name="retire {revision_id}", cache_policy=NO_CACHE)
async def retire_idle(session: EnvironmentSession, revision_id: str) -> bool:
    """Drain and stop a revision that was kept warm, unless it gets traffic again. Returns whether it was stopped."""
    revision, spec = session.revision(revision_id)
    target = await session.target(spec.target)
    if (await asyncio.to_thread(target.observe, session.app)).traffic.weights.get(revision_id):
        get_run_logger().info("%s: %s gets traffic again: not stopped", session, revision_id)
        return False
    await asyncio.to_thread(target.drain, revision, spec.drain)
    await asyncio.to_thread(target.retire, revision)
    return True


def has_changed_something(session: EnvironmentSession) -> bool:
    """Whether an unfinished rollout has started a step, so that a rollback is needed."""
    rollouts = session.ledger.rollouts
    return any(rollouts.steps(rollout.id) for rollout in rollouts.unfinished(session.app, session.environment))
