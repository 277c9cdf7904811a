"""Steps that start and stop instances: launch, await_ready, drain, retire."""

from __future__ import annotations

import asyncio
import time

from headway.domain.errors import RolloutFailed
from headway.domain.plan import AwaitReady, Drain, Launch, Retire
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.operator_commands import keep_skip
from headway.rollout.steps._target_calls import run_to_end

__all__ = ["await_ready", "drain", "launch", "retire"]

READY_POLL = 0.1  # seconds; a health check costs the app about as much as a request
DRAINED = 1.0  # seconds more for a drained revision, for requests that select it by header


async def launch(context: RolloutContext, _: int, step: Launch) -> Outcome:
    revision, spec = context.specs[step.revision]
    await run_to_end(context.target.launch, revision, spec.model_copy(update={"instances": step.instances}))
    return Outcome()


async def await_ready(context: RolloutContext, index: int, step: AwaitReady) -> Outcome:
    revision, _ = context.specs[step.revision]
    deadline = time.monotonic() + step.deadline
    while True:
        keep_skip(context, index)  # this step cannot be skipped, but the rollout can be aborted
        readiness = await asyncio.to_thread(context.target.ready, revision)
        if readiness.ready >= step.instances:
            return Outcome(detail=f"{readiness.ready} of {step.instances} ready")
        so_far = f"{revision}: {readiness.ready} of {step.instances} ready"
        if readiness.failed:
            raise RolloutFailed(
                f"{so_far}, and the rest will not be: {readiness.detail}",
                "see its log: headway logs APP ENV",
            )
        if time.monotonic() >= deadline:
            raise RolloutFailed(
                f"{so_far} after {step.deadline:g} s: {readiness.detail}",
                "see its log with headway logs, or increase health.startup",
            )
        await asyncio.sleep(READY_POLL)


async def drain(context: RolloutContext, _: int, step: Drain) -> Outcome:
    revision, _spec = context.specs[step.revision]
    if await asyncio.to_thread(context.target.drain, revision, step.deadline):
        return Outcome()
    return Outcome(detail=f"{revision} still had requests in flight after {step.deadline:g} s")


async def retire(context: RolloutContext, _: int, step: Retire) -> Outcome:
    revision, _spec = context.specs[step.revision]
    await asyncio.to_thread(context.target.retire, revision, step.keep, DRAINED if step.drained else None)
    return Outcome()
