"""The steps of a rollout: planned from what is live, written in the journal, taken one by one."""

from __future__ import annotations

import asyncio

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import resolve
from headway.config import Environment
from headway.domain.errors import NotFound, Superseded, TargetError
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, Launch, OperatorCommand, Plan, Step
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import Lock, ReleaseRecord, RolloutKind, RolloutRecord, SchemaChange
from headway.policy.schema_migrations.rollback_safety import in_the_way
from headway.rollout import strategies
from headway.rollout.executor import Outcome, RolloutContext, take
from headway.rollout.markdown import live_markdown
from headway.rollout.step_titles import titles
from tasks.approvals import held
from tasks.release_record import draw_verdict, ledger

__all__ = [
    "Prepared",
    "finish_rollback",
    "has_changed_something",
    "plan_rollback",
    "plan_rollout",
    "prepare",
    "retire_idle",
    "show_what_runs",
    "take_step",
]


class Journal:
    """The ledger's pages on one rollout."""

    def __init__(self, record: RolloutRecord, lock: Lock, *, supersede: bool) -> None:
        self._record = record
        self._lock = lock
        self._supersede = supersede

    def started(self, index: int, step: Step) -> None:
        ledger().rollouts.start_step(self._record, index, step, self._lock.token)

    def measured(self, index: int, measurements: Measurements) -> None:
        ledger().readings.add(self._record.id, index, measurements)

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None:
        ledger().rollouts.finish_step(self._record, index, outcome, detail, users, self._lock.token)

    def order(self) -> OperatorCommand | None:
        record = self._record
        if self._supersede and record.release_id:
            newer = ledger().queue.newer_release(record.release_id, record.app, record.environment)
            if newer is not None:
                raise Superseded(f"{record.environment}: {newer.name} takes its place", "supersede: abort says so")
        return ledger().commands.take(record.id)

    def waits(self, asks: str, *, stands: bool = True) -> None:
        if release_id := self._record.release_id:
            ledger().stages.set_waiting(release_id, self._record.environment, asks)
            ledger().releases.set_waiting(release_id, waiting=bool(asks) and stands)


class Prepared:
    """A rollout with its entry in the ledger, ready to be walked."""

    def __init__(self, rollout: RolloutContext, record: RolloutRecord) -> None:
        self.rollout = rollout
        self.record = record
        self.in_the_way: list[SchemaChange] = []
        """Contracts to be taken back before."""

    @property
    def steps(self) -> list[tuple[int, str]]:
        return titles(self.rollout.plan)


@task(name="plan", task_run_name="plan", cache_policy=NO_CACHE)
async def plan_rollout(
    release: ReleaseRecord, environment: Environment, revision: Revision, spec: LaunchSpec
) -> Prepared:
    """What it takes to bring `revision` into its environment, given what is live there now."""
    app, place = revision.app, spec.environment
    target = await _claim(spec, app)
    observation = await asyncio.to_thread(target.observe, app)
    stable = ledger().rollouts.live(app, place)
    plan = strategies.plan(environment, observation, revision, spec, stable=stable, capabilities=target.capabilities)
    await asyncio.to_thread(target.check, app, plan)
    for remark in await asyncio.to_thread(target.remarks, app, plan):
        get_run_logger().info(remark)
    for change in await asyncio.to_thread(target.compare, revision, spec) or ():
        get_run_logger().info("changes: %s", change.name)
    return await prepare(
        plan,
        target,
        app,
        place,
        release.id,
        "release",
        "",
        environment.progress_deadline,
        patience=strategies.FOREVER if environment.after_deadline == "wait" else 0.0,
        supersede=environment.supersede == "abort",
    )


@task(name="plan the way back", task_run_name="plan the way back", cache_policy=NO_CACHE)
async def plan_rollback(
    app: str,
    environment: str,
    to: str | None,
    reason: str,
    *,
    only_unfinished: bool,
    force: bool = False,
    revert: bool = False,
    by: str = "",
) -> Prepared | None:
    """What it takes to bring the environment back.

    `to` names a revision. Left out, it is the one from before the rollout that was left half-way, be it nothing at
    all; with none left half-way, the one from before the present one, or None with `only_unfinished`. Raises NotFound
    when there is none, MigrationRefused when the database has lost what it may need.
    """
    unfinished = ledger().rollouts.incomplete(app, environment)
    if only_unfinished and not unfinished:
        return None
    back: Revision | None
    if to is not None:
        back, spec = _recorded(app, environment, to)
    elif unfinished:
        failed = unfinished[0].plan
        # What is live and is released again has no older revision beside it: the way back leads to itself.
        before = failed.old or ledger().rollouts.live(app, environment)
        recorded, spec = _recorded(app, environment, before or failed.new)
        back = recorded if before else None
    elif previous := ledger().rollouts.previous(app, environment):
        back, spec = _recorded(app, environment, previous)
    else:
        raise NotFound(f"{app} {environment}: there is no earlier revision to go back to", f"see headway history {app}")
    contracts: list[SchemaChange] = []
    if back and (to is not None or not unfinished):
        later = ledger().schema_changes.contracts_after(app, environment, back.id)
        contracts = in_the_way(f"{app} {environment}", back.id, later, force=force, revert=revert, reason=reason)
        if force and any(one.begun for one in later):
            reason = f"{reason} (forced: past the contract of {later[0].revision})"
    if by:
        reason = f"{by}: {reason}" if reason else by
    target = await _claim(spec, app)
    observation = await asyncio.to_thread(target.observe, app)
    to_id = back.id if back else None
    plan = strategies.rollback(
        observation,
        to_id,
        instances=strategies.enough(spec, observation),
        startup=spec.health.startup,
        drain=spec.drain,
    )
    if back and any(isinstance(step, Launch) for step in plan.steps):
        lost = await asyncio.to_thread(target.missing, spec)
        if lost:
            raise NotFound(f"{app} {environment}: {back} cannot come back: {lost}", "go to another one with --to")
    release_id = unfinished[0].release_id if unfinished else None
    prepared = await prepare(
        plan,
        target,
        app,
        environment,
        release_id,
        "rollback",
        reason,
        spec.health.startup,
        reading=ledger().readings.last(unfinished[-1].id) if unfinished else None,
    )
    prepared.in_the_way = contracts
    return prepared


@task(task_run_name="{title}", cache_policy=NO_CACHE)
async def take_step(prepared: Prepared, index: int, title: str) -> Outcome:  # noqa: ARG001  # the title names the task run
    """One step of the plan. A verdict that lets it go on is drawn at once; one that does not, when it is back."""
    outcome = await take(prepared.rollout, index)
    if isinstance(prepared.rollout.plan.steps[index], Analyze):
        await draw_verdict(prepared.record)
    return outcome


@task(name="retire", task_run_name="retire {revision_id}", cache_policy=NO_CACHE)
async def retire_idle(app: str, environment: str, revision_id: str) -> bool:
    """Drain and stop a revision that was kept warm; whether it was stopped. One that gets traffic again stays."""
    revision, spec = _recorded(app, environment, revision_id)
    target = await _claim(spec, app)
    if (await asyncio.to_thread(target.observe, app)).traffic.weights.get(revision_id):
        get_run_logger().info("%s serves again: it stays", revision_id)
        return False
    await asyncio.to_thread(target.drain, revision, spec.drain)
    await asyncio.to_thread(target.retire, revision)
    return True


async def show_what_runs(prepared: Prepared) -> None:
    """What the platform says now, for the UI. A platform that does not say it just now changes nothing."""
    app, environment = prepared.rollout.app, prepared.record.environment
    try:
        lines = await asyncio.to_thread(prepared.rollout.target.describe, app)
    except TargetError as silent:
        get_run_logger().warning("what runs is not shown: %s", silent.what)
        return
    await acreate_markdown_artifact(
        key=f"live-{app}-{environment}", markdown=live_markdown(lines), description=f"{app} in {environment}"
    )


async def finish_rollback(prepared: Prepared) -> None:
    """The environment is where it was; the rollouts that had left it unfinished are closed with it."""
    app, environment = prepared.rollout.app, prepared.record.environment
    for rollout in ledger().rollouts.incomplete(app, environment):
        ledger().rollouts.finish(rollout.id, "done" if rollout.id == prepared.record.id else "rolled_back")
    for change in ledger().schema_changes.contracts_after(app, environment, prepared.rollout.plan.new or None):
        if change.state == "waiting":
            ledger().schema_changes.finish(
                change.id, "cancelled", f"{prepared.rollout.plan.new or 'nothing'} came back"
            )


def has_changed_something(app: str, environment: str) -> bool:
    """Whether an unfinished rollout has begun with its steps: from the first Launch on there is something to bring
    back.
    """
    return any(ledger().rollouts.steps(rollout.id) for rollout in ledger().rollouts.unfinished(app, environment))


async def _claim(spec: LaunchSpec, app: str) -> Target:
    target = await loading.load_target(spec.target)
    await asyncio.to_thread(target.claim, app, held(app, spec.environment).token)
    return target


async def prepare(
    plan: Plan,
    target: Target,
    app: str,
    environment: str,
    release_id: str | None,
    kind: RolloutKind,
    reason: str,
    progress_deadline: float,
    *,
    patience: float = 0.0,
    supersede: bool = False,
    reading: Measurements | None = None,
) -> Prepared:
    """Enter the rollout in the ledger, with all that its steps need."""
    for index, step in enumerate(plan.steps, 1):
        get_run_logger().info("%2d. %s", index, step)
    specs = {}
    for revision_id in {revision for step in plan.steps if (revision := getattr(step, "revision", None))}:
        revision, spec = _recorded(app, environment, revision_id)
        # What only ends needs no secrets, which may be gone by now.
        specs[revision_id] = revision, spec if plan.strategy == strategies.TEARDOWN else await resolve(spec)
    asked = {limit.source for step in plan.steps if isinstance(step, Analyze) for limit in step.metrics}
    sources = {source: await loading.load_metric_source(source) for source in asked}
    lock = held(app, environment)
    record = ledger().rollouts.start(release_id, app, environment, plan, kind=kind, reason=reason, token=lock.token)
    rollout = RolloutContext(
        record=record,
        target=target,
        specs=specs,
        journal=Journal(record, lock, supersede=supersede),
        on_line=_say,
        progress_deadline=progress_deadline,
        patience=patience,
        sources=sources,
        reading=reading,
    )
    return Prepared(rollout, record)


def _say(line: str) -> None:
    """In the log of the step that is being taken."""
    get_run_logger().info(line)


def _recorded(app: str, environment: str, revision: str) -> tuple[Revision, LaunchSpec]:
    return ledger().revisions.find(app, revision, environment=environment)
