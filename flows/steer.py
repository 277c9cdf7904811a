"""Promotes, skips or aborts a rollout while it runs: the form behind it in the UI, and `headway promote`."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from tasks.approvals import give_order

__all__ = ["steer"]


@flow(name="steer", flow_run_name="{decision} {app} {environment}")
async def steer(
    app: str, environment: str, decision: Literal["promote", "skip", "abort"], by: str, reason: str = ""
) -> None:
    """Tell the rollout that is under way what to do.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        decision: `skip` leaves out the step that is going on, `promote` every pause, wait and analysis from now on,
            `abort` brings the old version back
        by: who decides
        reason: kept in the record
    """
    await give_order(app, environment, decision, by, reason)
