"""Too few requests of users for an analysis: say so before the rollout, with the ways out."""

from __future__ import annotations

import time
from collections.abc import Iterator

from headway.domain.errors import TargetError
from headway.domain.measurements import Measurements
from headway.domain.plan import Analyze, Plan, Route
from headway.domain.ports import Target
from headway.domain.traffic import Capability

__all__ = ["WAYS_OUT", "little_traffic"]

WAYS_OUT = (
    "three ways out: declare `synthetic` requests in the analysis; lower its `min_requests`; "
    "or decide yourself with headway skip, promote or abort"
)
SAMPLE = 1.0  # seconds for which the requests of users are counted


def little_traffic(target: Target, app: str, plan: Plan) -> str | None:
    """A remark when the analyses of a plan will get fewer requests than they need within their windows.

    It counts for a second. None as well when the target counts nothing, or does not answer.
    """
    judged = list(_judged_by_users(plan))
    if not judged or Capability.METRICS not in target.capabilities:
        return None
    rate = _rate(target, app, plan.old or "")
    if rate is None:
        return None
    share, step = min(judged, key=lambda one: one[0] * one[1].window / one[1].min_requests)
    expected = rate * step.window * share / 100
    if expected >= step.min_requests:
        return None
    return (
        f"users send {rate:.3g} requests a second now: at {share} % the analysis gets about {expected:.0f} of the "
        f"{step.min_requests} requests that it needs within {step.window:g} s, then it waits; {WAYS_OUT}"
    )


def _judged_by_users(plan: Plan) -> Iterator[tuple[int, Analyze]]:
    """Analyses that only users send requests to, each with the share of the traffic that it has."""
    share = 0
    for step in plan.steps:
        if isinstance(step, Route):
            share = step.traffic.weights.get(plan.new, 0)
        elif isinstance(step, Analyze) and step.needs_counts and step.synthetic is None:
            yield share, step


def _rate(target: Target, app: str, live: str) -> float | None:
    """Requests of users a second. None when they are not counted at once, but there have been some."""
    try:
        before = target.measure(app)
        time.sleep(SAMPLE)
        now = target.measure(app)
    except TargetError:
        return None
    if before.edge is not None and now.edge is not None:
        return now.edge.since(before.edge).requests / SAMPLE
    return None if _any(now, live) else 0.0


def _any(reading: Measurements, revision: str) -> bool:
    return revision in reading.counts and reading.counts[revision].requests > 0
