"""`headway promote`, `skip` and `abort`: a word to the rollout that is under way."""

from __future__ import annotations

from typing import Literal

from headway.cli.output import output
from headway.domain.plan import OperatorCommand
from headway.ledger import Ledger
from headway.system.paths import ledger_url

__all__ = ["steer"]


def steer(app: str, environment: str, kind: Literal["promote", "skip", "abort"], by: str, reason: str) -> None:
    """Enter it in the ledger; the rollout finds it there within a second. Raises NotFound when none is under way."""
    order = OperatorCommand(kind=kind, by=by, reason=reason)
    with Ledger.open(ledger_url()) as ledger:
        rollout = ledger.give_order(app, environment, order, via="cli")
    output.say(f"{app} {environment}: {rollout.plan.new} is told: {kind}")
    output.result({"app": app, "environment": environment, "revision": rollout.plan.new, **order.model_dump()})
