"""Steer: promote, skip or abort a running rollout, from a form in the Prefect UI."""

from __future__ import annotations

from typing import Literal

from prefect import flow

from headway.domain.access import Action
from tasks.release_record import open_ledger
from tasks.requester import requested_by, require
from tasks.rollout_commands import give_command

__all__ = ["steer"]


@flow(name="steer", flow_run_name="{decision} {app} {environment}")
async def steer(
    app: str, environment: str, decision: Literal["promote", "skip", "abort"], by: str = "", reason: str = ""
) -> None:
    """Give a command to the running rollout.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        decision: `skip` skips the current step, `promote` skips every pause, wait and analysis from now on, `abort`
            rolls back
        by: ignored when a person starts the run; services of Headway name what they start it for
        reason: kept in the record
    """
    with open_ledger() as ledger:
        require(ledger, Action.ROLLBACK if decision == "abort" else Action.PROMOTE, app, environment)
        await give_command(ledger, app, environment, decision, requested_by(ledger, by) or "headway", reason)
