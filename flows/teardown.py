"""Teardown: remove the preview environment of a pull request; its record in the ledger stays."""

from __future__ import annotations

from datetime import datetime

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from headway.config import PREVIEW
from headway.domain.access import Action
from headway.domain.errors import HeadwayError
from headway.policy import previews
from tasks.environment_lock import EnvironmentSession, hold
from tasks.previews import close_preview, forget, plan_teardown, preview_targets, why_keep
from tasks.release_record import open_ledger
from tasks.requester import requested_by, require
from tasks.rollback_steps import finish_rollback
from tasks.rollout_steps import take_steps

__all__ = ["clear_all", "teardown"]


@flow(name="teardown", flow_run_name="remove the preview of {app} #{number}")
async def teardown(app: str, number: int, reason: str = "", by: str = "", seen: datetime | None = None) -> None:
    """Tear down the preview of a pull request, after the run that deploys it, if there is one.

    Does nothing if the pull request was opened again or has another commit. A target that fails does not keep the
    other targets from being cleared.

    Args:
        app: name of the registered app
        number: of the pull request
        reason: kept in the record
        by: ignored when a person starts the run; services of Headway name what they start it for
        seen: when the preview had last changed, if it must not be torn down after a later change
    """
    name = previews.name(app, number)
    with open_ledger() as ledger:
        require(ledger, Action.RELEASE, app)
        by = requested_by(ledger, by) or "headway"
        reason, holder = reason or f"requested by {by}", f"teardown by {by}"
        async with hold(ledger, name, PREVIEW, holder=holder, revision="nothing", patient=True) as session:
            if late := why_keep(ledger, name, str(flow_run.get_root_flow_run_id()), seen):
                get_run_logger().info("%s: not torn down: %s", name, late)
                return
            await clear_all(session, reason)
            close_preview(session, reason)


async def clear_all(session: EnvironmentSession, reason: str) -> None:
    """Clear every target, and raise the first error at the end."""
    errors: list[HeadwayError] = []
    for target in preview_targets(session):
        try:
            await _clear(session, target, reason)
        except HeadwayError as error:
            get_run_logger().error("%s: %s", target, error)
            errors.append(error)
    if errors:
        raise errors[0]


async def _clear(session: EnvironmentSession, target: str, reason: str) -> None:
    """Stop and remove everything of the app on one target."""
    context = await plan_teardown(session, target, reason)
    await take_steps(session, context)
    await finish_rollback(session, context)
    await forget(session, target)
