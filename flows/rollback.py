"""Rollback: an older revision back to one environment, through the same steps as a rollout."""

from __future__ import annotations

from prefect import flow

from headway.domain.access import Action
from tasks.artifacts import publish_live_state
from tasks.environment_lock import EnvironmentSession, hold
from tasks.release_record import open_ledger
from tasks.requester import requested_by, require
from tasks.rollback_steps import RollbackRequest, finish_rollback, plan_rollback
from tasks.rollout_steps import take_steps
from tasks.schema_migrations import revert_schema

__all__ = ["roll_back_failed", "rollback"]


@flow(name="rollback", flow_run_name="roll back {app} {environment}")
async def rollback(
    app: str,
    environment: str,
    to: str | None = None,
    reason: str = "",
    by: str = "",
    only_unfinished: bool = False,
    force: bool = False,
    revert: bool = False,
) -> None:
    """Roll back one environment of an app.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        to: revision or commit to return to; the one before the live one by default
        reason: kept in the record
        by: ignored when a person starts the run; services of Headway name what they start it for
        only_unfinished: do nothing unless a rollout was interrupted
        force: roll back although a contract migration removed what that version may need; needs a reason
        revert: revert such contract migrations first, with the command in migrations/revert
    """
    with open_ledger() as ledger:
        require(ledger, Action.ROLLBACK, app, environment)
        by = requested_by(ledger, by)
        asked = RollbackRequest(
            to=to, reason=reason, by=by, only_unfinished=only_unfinished, force=force, revert=revert
        )
        holder, revision = f"rollback by {by or 'headway'}", to or "the one before"
        async with hold(ledger, app, environment, holder=holder, revision=revision) as session:
            await _roll_back(session, asked)


@flow(name="rollback", flow_run_name="roll back {session}", validate_parameters=False)
async def roll_back_failed(session: EnvironmentSession, reason: str) -> None:
    """Roll back the rollout that has failed, in the session that holds the environment."""
    await _roll_back(session, RollbackRequest(reason=reason))


async def _roll_back(session: EnvironmentSession, request: RollbackRequest) -> None:
    planned = await plan_rollback(session, request)
    if planned is None:
        return
    context, contracts = planned
    for change in contracts:
        await revert_schema(session, change)
    await take_steps(session, context)
    await publish_live_state(session.ledger, context)
    await finish_rollback(session, context)
