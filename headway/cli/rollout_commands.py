"""`headway promote`, `headway skip` and `headway abort`."""

from __future__ import annotations

from typing import Literal

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, By, EnvironmentArgument, Json, Reason
from headway.cli.output import output
from headway.domain.plan import OperatorCommand
from headway.ledger import Ledger
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["abort", "promote", "skip"]


@examples(
    "headway promote shop production",
)
def promote(
    app: AppArgument, environment: EnvironmentArgument, _by: By = "", reason: Reason = "", _json: Json = False
) -> None:
    """Promote the running rollout to 100 % of traffic now.

    All further pauses, approvals and analyses are skipped.
    """
    _command("promote", app, environment, reason)


@examples(
    "headway skip shop production",
)
def skip(
    app: AppArgument, environment: EnvironmentArgument, _by: By = "", reason: Reason = "", _json: Json = False
) -> None:
    """Skip the current step of the running rollout.

    The step must be a pause, an approval or an analysis.
    """
    _command("skip", app, environment, reason)


@examples(
    'headway abort shop production --reason "complaints"',
)
def abort(
    app: AppArgument, environment: EnvironmentArgument, _by: By = "", reason: Reason = "", _json: Json = False
) -> None:
    """Abort the running rollout and return to the previous revision."""
    _command("abort", app, environment, reason)


def _command(kind: Literal["promote", "skip", "abort"], app: str, environment: str, reason: str) -> None:
    """Enter it in the ledger; the rollout reads it within a second. Raises NotFound when no rollout is running."""
    order = OperatorCommand(kind=kind, by=str(os_user()), reason=reason)
    with Ledger.open(ledger_url()) as ledger:
        rollout = ledger.commands.give(app, environment, order, via="cli")
    output.say(f"{app} {environment}: {rollout.plan.new} {kind} requested")
    output.result({"app": app, "environment": environment, "revision": rollout.plan.new, **order.model_dump()})
