"""Takes the preview of a pull request away: nothing of it is routed, runs or is kept; the ledger's record stays."""

from __future__ import annotations

from prefect import flow

from headway import previews
from headway.settings import PREVIEW
from tasks.gates import hold
from tasks.previews import close, forget, plan_teardown, standing_on
from tasks.steps import finish_rollback, take_step

__all__ = ["teardown"]


@flow(name="teardown", flow_run_name="{app} #{number}")
async def teardown(app: str, number: int, reason: str = "", by: str = "") -> None:
    """Tear down the preview of a pull request; what is being brought there just now is waited for.

    Args:
        app: name of the app, as it is or was registered
        number: of the pull request
        reason: kept in the record
        by: who asks for it
    """
    name, reason = previews.name(app, number), reason or f"asked for by {by or 'somebody'}"
    async with hold(
        name, PREVIEW, holder=f"teardown by {by or 'headway'}", revision="nothing", release=None, patient=True
    ):
        for target in standing_on(name):
            prepared = await plan_teardown(name, target, reason)
            for index, title in prepared.steps:
                await take_step(prepared, index, title)
            await finish_rollback(prepared)
            await forget(name, target)
        close(name, reason)
