"""The step that tries the rollback before it is needed: rehearse."""

from __future__ import annotations

import asyncio
import time

from headway.domain.errors import RolloutFailed
from headway.domain.plan import Rehearse
from headway.domain.ports import Target
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.load_generator import Load
from headway.rollout.steps._target_calls import run_to_end

__all__ = ["rehearse"]

REHEARSAL = 0.3  # seconds of requests before, between and after the switches
RATE = 100.0  # requests a second


async def rehearse(context: RolloutContext, _: int, step: Rehearse) -> Outcome:
    """Send synthetic requests meanwhile: without requests, a rehearsal could not drop any."""
    url = (await asyncio.to_thread(context.target.observe, context.app)).url
    assert url is not None  # a revision is live: there would be no rollback otherwise
    path = next(iter(context.specs.values()))[1].health.path
    load = Load(url, paths=[path], rate=RATE, headers=context.target.request_headers)
    try:
        seconds = await run_to_end(_switch_and_back, context.target, context.app, step, load)
    finally:
        context.own.add(load.sent, errors=load.failed)
    result = f"the rollback took {1000 * seconds:.0f} ms, {load.failed} of {load.sent} requests failed"
    if load.failed or seconds > step.within:
        failures = f" ({load.failures[0]})" if load.failures else ""
        raise RolloutFailed(
            f"{step.low} was not promoted: {result}{failures}",
            f"the rollback may take {step.within:g} s and must not drop requests",
        )
    return Outcome(detail=result)


def _switch_and_back(target: Target, app: str, step: Rehearse, load: Load) -> float:
    """Seconds that the switch back took."""
    with load:
        time.sleep(REHEARSAL)
        target.route(app, step.low)
        time.sleep(REHEARSAL)
        begun = time.monotonic()
        target.route(app, step.back)
        seconds = time.monotonic() - begun
        time.sleep(REHEARSAL)
    return seconds
