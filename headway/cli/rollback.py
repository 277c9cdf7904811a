"""`headway rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, By, EnvironmentArgument, Json, Reason
from headway.cli.output import output
from headway.cli.wait import wait
from headway.domain import deployments
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.service.prefect.start_as import start_as
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["rollback"]


@examples(
    "headway rollback shop production                 # go back to the revision before",
    "headway rollback shop production --to 3f2a9c1    # go back to a commit or revision",
)
def rollback(
    app: AppArgument,
    environment: EnvironmentArgument,
    to: Annotated[str | None, typer.Option(help="Revision or commit; default: the one before the live one")] = None,
    reason: Reason = "",
    _by: By = "",
    revert: Annotated[bool, typer.Option("--revert", help="Revert contract migrations of the database first")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Ignore contract migrations that rule the rollback out; needs --reason")
    ] = False,
    _json: Json = False,
) -> None:
    """Roll an environment back to an earlier revision."""
    if force and not reason.strip():
        raise UsageError("--force needs a reason", "add --reason WHY")
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        _require_released(ledger, app, environment, to)
        asked = {"app": app, "environment": environment, "to": to, "reason": reason, "force": force, "revert": revert}
        run_id = start_as(os_user(), ledger, control, deployments.ROLLBACK, asked)
        run = wait(control, run_id)
        live = ledger.rollouts.live(app, environment)
        if run.type != "COMPLETED":
            raise HeadwayError(f"{app} {environment}: {run.error or run.state}", f"details: {control.run_url(run_id)}")
        output.say(f"{app} {environment}: {live or 'nothing'} is live")
        output.result({"app": app, "environment": environment, "live": live, "flow_run_id": run_id})


def _require_released(ledger: Ledger, app: str, environment: str, to: str | None) -> None:
    """Raise NotFound when the app was never released to the environment, or has no such revision there."""
    if environment not in ledger.rollouts.environments(app):
        there = (
            ", ".join(ledger.rollouts.environments(app))
            if app in ledger.releases.apps()
            else f"apps: {', '.join(ledger.releases.apps())}"
        )
        raise NotFound(f"{app} was never released to {environment}", f"there are: {there or 'none'}")
    if to is not None:
        ledger.revisions.find(app, to, environment=environment)
