"""What each step of a plan does: one handler for each type of step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from headway.domain.plan import (
    Analyze,
    AwaitReady,
    Drain,
    Gate,
    Launch,
    Pause,
    Promote,
    Rehearse,
    Retire,
    Route,
    Step,
    Verify,
)
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.operator_commands import keep_skip
from headway.rollout.steps import analyze, instances, rehearse, traffic, verify, waiting

__all__ = ["HANDLERS", "perform"]

Handler = Callable[[RolloutContext, int, Any], Awaitable[Outcome]]

HANDLERS: Mapping[type, Handler] = MappingProxyType(
    {
        Launch: instances.launch,
        AwaitReady: instances.await_ready,
        Route: traffic.route,
        Pause: waiting.pause,
        Gate: waiting.gate,
        Verify: verify.verify,
        Analyze: analyze.analyze,
        Rehearse: rehearse.rehearse,
        Promote: traffic.promote,
        Drain: instances.drain,
        Retire: instances.retire,
    }
)
SKIPPED_WHEN_PROMOTED = (Pause, Gate, Analyze)


async def perform(context: RolloutContext, index: int, step: Step) -> Outcome:
    """Do the step at `index` of the plan. Raises RolloutFailed, Aborted, TargetError and what a port raises."""
    keep_skip(context, index)
    if context.promoted and isinstance(step, SKIPPED_WHEN_PROMOTED):
        return Outcome(detail=f"skipped: {context.promoted}")
    return await HANDLERS[type(step)](context, index, step)
