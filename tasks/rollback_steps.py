"""Steps of a rollback: which revision to return to, the plan for it, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from headway.domain.base import Frozen
from headway.domain.errors import NotFound
from headway.domain.plan import Launch, Promote
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import RolloutRecord, SchemaChange
from headway.policy.schema_migrations.rollback_safety import contracts_to_revert
from headway.rollout.availability import answered
from headway.rollout.executor import RolloutContext
from headway.rollout.planning import plan_back
from tasks.environment_lock import EnvironmentSession
from tasks.receipts import require_receipt
from tasks.rollout_steps import RolloutRequest, start_rollout

__all__ = ["RollbackRequest", "finish_rollback", "plan_rollback"]


class RollbackRequest(Frozen):
    """A requested rollback: the parameters of the flow `rollback`, documented there."""

    to: str | None = None
    reason: str = ""
    by: str = ""
    only_unfinished: bool = False
    force: bool = False
    revert: bool = False


@task(name="plan rollback", task_run_name="plan rollback", cache_policy=NO_CACHE)
async def plan_rollback(
    session: EnvironmentSession, request: RollbackRequest
) -> tuple[RolloutContext, list[SchemaChange]] | None:
    """Plan the rollback and record its start; returns it with the contract migrations to revert first.

    Without `to` it returns to the revision from before the first incomplete rollout, which may be none at all; if no
    rollout is incomplete, to the revision before the live one. Returns None with `only_unfinished` when no rollout is
    incomplete. Raises NotFound, MigrationRefused, and ReleaseFailed when a required receipt is not valid.
    """
    incomplete = session.ledger.rollouts.incomplete(session.app, session.environment)
    if request.only_unfinished and not incomplete:
        return None
    revision, spec = _destination(session, request.to, incomplete)
    contracts: list[SchemaChange] = []
    reason = request.reason
    if revision and (request.to is not None or not incomplete):
        contracts, reason = _contracts_to_revert(session, revision, request)
    if request.by:
        reason = f"{request.by}: {reason}" if reason else request.by
    target = await session.target(spec.target)
    plan = await answered(
        lambda: asyncio.to_thread(plan_back, target, session.app, revision, spec), on_line=get_run_logger().info
    )
    if revision and any(isinstance(step, Launch) for step in plan.steps):
        await _require_launchable(session, target, revision, spec)
        await require_receipt(session, revision, spec)
    rollout = RolloutRequest(
        plan=plan,
        kind="rollback",
        release_id=incomplete[0].release_id if incomplete else None,
        reason=reason,
        by=request.by,
        reading=session.ledger.readings.last(incomplete[-1].id) if incomplete else None,
    )
    return await start_rollout(session, target, rollout), contracts


def _destination(
    session: EnvironmentSession, to: str | None, incomplete: Sequence[RolloutRecord]
) -> tuple[Revision | None, LaunchSpec]:
    """The revision to return to; None with the spec of the failed one when nothing was live. Raises NotFound."""
    if to is not None:
        return session.revision(to)
    rollouts = session.ledger.rollouts
    if incomplete:
        failed = incomplete[0].plan
        if _is_promoted(session, incomplete[0]):
            return session.revision(failed.new)
        # A rollout of the live revision itself has no old revision: its rollback returns to the live one.
        before = failed.old or rollouts.live(session.app, session.environment)
        revision, spec = session.revision(before or failed.new)
        return (revision if before else None), spec
    if previous := rollouts.previous(session.app, session.environment):
        return session.revision(previous)
    raise NotFound(f"{session}: there is no earlier revision to roll back to", f"see headway history {session.app}")


def _is_promoted(session: EnvironmentSession, rollout: RolloutRecord) -> bool:
    """Whether this rollback had moved the traffic when it was interrupted: what is left is to stop other revisions."""
    promoted = {index for index, step in enumerate(rollout.plan.steps) if isinstance(step, Promote)}
    steps = session.ledger.rollouts.steps(rollout.id) if rollout.kind == "rollback" else []
    return any(step.position in promoted and step.outcome == "done" for step in steps)


def _contracts_to_revert(
    session: EnvironmentSession, revision: Revision, request: RollbackRequest
) -> tuple[list[SchemaChange], str]:
    """Contract migrations to revert, and the reason of the rollback, which says if it is forced.

    Raises MigrationRefused.
    """
    later = session.ledger.schema_changes.contracts_after(session.app, session.environment, revision.id)
    contracts = contracts_to_revert(
        str(session), revision.id, later, force=request.force, revert=request.revert, reason=request.reason
    )
    if request.force and any(one.begun for one in later):
        return contracts, f"{request.reason} (forced: past the contract of {later[0].revision})"
    return contracts, request.reason


async def _require_launchable(
    session: EnvironmentSession, target: Target, revision: Revision, spec: LaunchSpec
) -> None:
    """Raise NotFound when the artifact of a revision is gone."""
    missing = await asyncio.to_thread(target.missing, spec)
    if missing:
        raise NotFound(f"{session}: {revision} cannot be restored: {missing}", "go to another one with --to")


async def finish_rollback(session: EnvironmentSession, context: RolloutContext) -> None:
    """Record the end of the rollback and of the incomplete rollouts before it; cancel contract migrations after it.

    When nothing is live now, as after a first release that failed, nothing is left running.
    """
    ledger, app, environment = session.ledger, session.app, session.environment
    for rollout in ledger.rollouts.incomplete(app, environment):
        ledger.rollouts.finish(rollout.id, "done" if rollout.id == context.record.id else "rolled_back")
    live = context.plan.new or None
    for change in ledger.schema_changes.contracts_after(app, environment, live):
        if change.state == "waiting":
            ledger.schema_changes.finish(change.id, "cancelled", f"{live or 'nothing'} came back")
    if live is None:
        await asyncio.to_thread(context.target.stop_idle, app)
