"""Executes a plan step by step on any target.

The journal records each step before it begins and after it ends, so that a step that was interrupted is known. Steps
are idempotent: a plan can be executed again from its beginning.
"""

from __future__ import annotations

import asyncio

from headway.domain.errors import Aborted, Superseded, TargetError
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Drain, Promote, Retire
from headway.domain.traffic import Capability
from headway.rollout.availability import answered
from headway.rollout.context import Journal, Outcome, RolloutContext
from headway.rollout.operator_commands import keep_skip
from headway.rollout.steps import perform

__all__ = ["Journal", "Outcome", "RolloutContext", "take", "walk"]


async def walk(context: RolloutContext) -> None:
    """Take every step of the plan in order; the first that fails ends the walk with its exception."""
    for index in range(len(context.plan.steps)):
        await take(context, index)


async def take(context: RolloutContext, index: int) -> Outcome:
    """Take one step and record it."""
    step = context.plan.steps[index]
    context.journal.started(index, step)
    if context.reading is None:
        context.reading = await _measure(context, index)
        context.own.clear()
    try:
        outcome = await _perform(context, index)
    except BaseException as error:
        users = await asyncio.shield(_users(context, index))
        context.journal.finished(index, *_failure(error), users)
        raise
    context.journal.finished(index, "done", outcome.detail, await _users(context, index))
    if outcome.detail:
        context.on_line(outcome.detail)
    return outcome


async def _perform(context: RolloutContext, index: int) -> Outcome:
    """Do the step, again if the platform was away.

    After the promotion, a revision that cannot be stopped is left to the next rollout. Its traffic is gone by then: to
    undo the switch would bring back the version that is being left.
    """
    step = context.plan.steps[index]
    try:
        return await answered(
            lambda: perform(context, index, step),
            on_line=context.on_line,
            within=context.progress_deadline,
            meanwhile=lambda: keep_skip(context, index),
        )
    except TargetError as error:
        promoted = any(isinstance(before, Promote) for before in context.plan.steps[:index])
        if not promoted or not isinstance(step, Drain | Retire):
            raise
        return Outcome(detail=f"{step.revision} is still running, and the next rollout stops it: {error.what}")


async def _measure(context: RolloutContext, index: int) -> Measurements | None:
    """Take a reading between steps; without one, the rollout continues."""
    if Capability.METRICS not in context.target.capabilities:
        return None
    try:
        reading = await asyncio.to_thread(context.request_counter.read)
    except TargetError as error:
        context.on_line(f"requests are not counted: {error.what}")
        return None
    context.journal.measured(index, reading)
    return reading


async def _users(context: RolloutContext, index: int) -> RequestCounts | None:
    """Responses to users since the last reading, which may be one of an analysis; our own requests are left out."""
    before, now = context.reading, context.analysis_reading
    context.analysis_reading = None
    if now is None:
        now = await _measure(context, index)
    if now is None:
        return None
    context.reading = now
    if before is None or now.edge is None or before.edge is None:
        return None
    return context.own.users(now.edge.since(before.edge))


def _failure(error: BaseException) -> tuple[str, str]:
    """Outcome and detail of a step that did not end by itself, or failed."""
    match error:
        case Aborted():
            return "aborted", error.what
        case Superseded():
            return "superseded", error.what
        case Exception():
            return "failed", f"{type(error).__name__}: {error}"
        case _:  # cancelling a run, or ending its process, raises what is no Exception
            return "cancelled", "the release was cancelled"
