"""Steps that decide which revision users get: route, promote."""

from __future__ import annotations

import asyncio

from headway.domain.plan import Promote, Route
from headway.domain.traffic import Observation, Traffic
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.steps._target_calls import run_to_end

__all__ = ["promote", "route"]


async def route(context: RolloutContext, _: int, step: Route) -> Outcome:
    await run_to_end(context.target.route, context.app, step.traffic)
    return Outcome(detail=_in_force(step.traffic, await asyncio.to_thread(context.target.observe, context.app)))


async def promote(_: RolloutContext, _index: int, step: Promote) -> Outcome:
    """The journal's record of this step makes the revision the stable one."""
    return Outcome(detail=f"{step.revision} is the stable revision")


def _in_force(wanted: Traffic, seen: Observation) -> str:
    """The traffic that is in force; a platform may only come near to what was wanted."""
    text = f"in force: {seen.traffic}" + (f" at {seen.preview_url}" if wanted.preview else "")
    return text if seen.traffic.weights == wanted.weights else f"{text}: the nearest to {wanted} that can be had"
