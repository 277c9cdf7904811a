"""Commands of a person to a running rollout: skip a step, promote, abort."""

from __future__ import annotations

import asyncio
import time

from headway.domain.errors import Aborted
from headway.domain.plan import OperatorCommand
from headway.rollout.context import RolloutContext

__all__ = ["keep_skip", "next_command", "wait"]

POLL = 0.25  # seconds; a read of the ledger takes a millisecond


def next_command(context: RolloutContext, index: int) -> OperatorCommand | None:
    """A skip of the step at `index`, or a promotion. Raises Aborted, or Superseded."""
    command, context.skip = context.skip or context.journal.order(), None
    if command is None:
        return None
    if command.kind == "abort":
        raise Aborted(f"{context.plan.new} was {command}")
    if command.kind == "promote":
        context.promoted = command
    elif command.position not in (None, index):
        context.on_line(f"{command}: too late, that step is over")
        return None
    return command


def keep_skip(context: RolloutContext, index: int) -> None:
    """Read the next command in a step that does not wait: a skip is kept until a step that waits reads it."""
    command = next_command(context, index)
    context.skip = command if command and command.kind == "skip" else None


async def wait(context: RolloutContext, index: int, seconds: float) -> str:
    """Wait, or return the command that ended the wait early, in words."""
    end = time.monotonic() + seconds
    while True:
        if command := next_command(context, index):
            return str(command)
        left = end - time.monotonic()
        if left <= 0:
            return ""
        await asyncio.sleep(min(POLL, left))
