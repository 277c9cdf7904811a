"""Takes the preview of a pull request away: nothing of it is routed, runs or is kept; the ledger's record stays."""

from __future__ import annotations

from datetime import datetime

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from headway.config import PREVIEW
from headway.domain.errors import HeadwayError
from headway.policy import previews
from tasks.approvals import hold
from tasks.previews import close, forget, plan_teardown, standing_on, wanted_again
from tasks.rollout_steps import finish_rollback, take_step

__all__ = ["teardown"]


@flow(name="teardown", flow_run_name="{app} #{number}")
async def teardown(app: str, number: int, reason: str = "", by: str = "", seen: datetime | None = None) -> None:
    """Tear down the preview of a pull request; what is being brought there just now is waited for.

    Nothing is done when the pull request was opened again, or has another commit, meanwhile. One target that cannot
    be cleared keeps no other from it.

    Args:
        app: name of the app, as it is or was registered
        number: of the pull request
        reason: kept in the record
        by: who asks for it
        seen: when the preview had changed last, as far as whoever asks knows; left out, it goes whatever came since
    """
    name, reason = previews.name(app, number), reason or f"asked for by {by or 'somebody'}"
    async with hold(
        name, PREVIEW, holder=f"teardown by {by or 'headway'}", revision="nothing", release=None, patient=True
    ):
        if late := wanted_again(name, str(flow_run.get_root_flow_run_id()), seen):
            get_run_logger().info("nothing is torn down: %s", late)
            return
        failed: list[HeadwayError] = []
        for target in standing_on(name):
            try:
                await clear(name, target, reason)
            except HeadwayError as error:
                get_run_logger().error("%s: %s", target, error)
                failed.append(error)
        if failed:
            raise failed[0]
        close(name, reason)


async def clear(name: str, target: str, reason: str) -> None:
    """Take away what there is of it on one target."""
    prepared = await plan_teardown(name, target, reason)
    for index, title in prepared.steps:
        await take_step(prepared, index, title)
    await finish_rollback(prepared)
    await forget(name, target)
