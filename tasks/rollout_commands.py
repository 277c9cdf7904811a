"""Commands of a person to a running rollout."""

from __future__ import annotations

from typing import Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from headway.domain.plan import OperatorCommand
from headway.ledger import Ledger

__all__ = ["give_command"]


@task(name="give order", task_run_name="{kind} {app} {environment}", cache_policy=NO_CACHE)
async def give_command(
    ledger: Ledger, app: str, environment: str, kind: Literal["promote", "skip", "abort"], by: str, reason: str
) -> None:
    """Record the command in the ledger, where the rollout reads it. Raises NotFound when no rollout is running."""
    command = OperatorCommand(kind=kind, by=by, reason=reason)
    rollout = ledger.commands.give(app, environment, command, via="ui")
    get_run_logger().info("%s %s: %s: %s", app, environment, rollout.plan.new, kind)
