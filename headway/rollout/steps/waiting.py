"""Steps that wait: pause, gate."""

from __future__ import annotations

from headway.domain.errors import RolloutFailed
from headway.domain.plan import Gate, Pause
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.operator_commands import wait

__all__ = ["gate", "pause"]


async def pause(context: RolloutContext, index: int, step: Pause) -> Outcome:
    return Outcome(detail=await wait(context, index, step.seconds))


async def gate(context: RolloutContext, index: int, step: Gate) -> Outcome:
    context.journal.waits(step.asks)
    context.on_line(f"waiting for a person: {step.asks}")
    try:
        decision = await wait(context, index, step.deadline)
    finally:
        context.journal.waits("")
    if not decision:
        raise RolloutFailed(f"no decision within {step.deadline / 3600:g} h: {step.asks}", "release it again")
    return Outcome(detail=decision)
