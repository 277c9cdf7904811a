"""Business metrics: the value of a metric source against a limit."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from headway.domain.measurements import Measurements, Verdict
from headway.domain.plan import MetricLimit
from headway.rollout.analysis.thresholds import Judgement

__all__ = ["metric"]

COMPARE = {">=": operator.ge, "<=": operator.le}


def metric(limit: MetricLimit, readings: Sequence[Measurements]) -> Judgement:
    """Judge the last of `readings`: a limit that did not hold for `limit.lasting` seconds is a fail.

    No data is inconclusive; a source that does not answer is an error. Neither is a pass or a fail.
    """
    now = readings[-1].metrics.get(limit.name)
    if isinstance(now, str):
        return Judgement(verdict=Verdict.ERROR, evidence=f"{limit.name}: {now}")
    if now is None or math.isnan(now):
        return Judgement(verdict=Verdict.INCONCLUSIVE, evidence=f"{limit.name}: no data")
    if _holds(limit, now):
        return Judgement(verdict=Verdict.PASS, evidence=f"{limit.name} {now:g}")
    since = readings[-1].at
    for reading in reversed(readings):
        value = reading.metrics.get(limit.name)
        if not isinstance(value, float) or math.isnan(value) or _holds(limit, value):
            break
        since = reading.at
    broken = (readings[-1].at - since).total_seconds()
    evidence = f"{limit} does not hold: {now:g}, for {broken:.0f} s"
    if broken >= limit.lasting:
        return Judgement(verdict=Verdict.FAIL, evidence=evidence)
    return Judgement(verdict=Verdict.INCONCLUSIVE, evidence=f"{evidence} of {limit.lasting:g}")


def _holds(limit: MetricLimit, value: float) -> bool:
    return bool(COMPARE[limit.op](value, limit.limit))
