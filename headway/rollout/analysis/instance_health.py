"""Instances that crash or become unhealthy during an analysis. Retries of the proxy hide that from users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headway.domain.measurements import Measurements, Verdict
from headway.rollout.analysis.thresholds import Judgement

__all__ = ["steadiness"]

UNHEALTHY = 5.0  # seconds; the proxy has checked several times by then


def steadiness(
    readings: Sequence[Measurements], *, startup: float = 0.0, at_least: int | None = None
) -> Judgement | None:
    """Judge the instances since the first of `readings`; None when the target does not report instances.

    They are judged as a set: one that was replaced by another ready one is no loss, as when its node is drained. A
    restarted instance has crashed: a fail. Too few ready ones are inconclusive, and a fail after UNHEALTHY seconds. A
    replacement has `startup` seconds to become ready. An autoscaler may leave `at_least` of them.
    """
    first = next((reading for reading in readings if reading.instances), None)
    if first is None:
        return None
    wanted, last = len(first.instances), readings[-1]
    wanted = wanted if at_least is None else min(wanted, at_least)
    if crashed := _crashed(readings):
        return Judgement(verdict=Verdict.FAIL, evidence=f"{', '.join(crashed)} crashed and was restarted")
    if _ready(last) >= wanted:
        return Judgement(verdict=Verdict.PASS, evidence=f"{wanted} instances healthy")
    seconds = (last.at - _too_few_since(readings, wanted)).total_seconds()
    evidence = f"{_ready(last)} of {wanted} instances healthy for {seconds:.1f} s: {_reason(first, last)}"
    patience = max(UNHEALTHY, startup) if _starting(readings) >= wanted - _ready(last) else UNHEALTHY
    return Judgement(verdict=Verdict.FAIL if seconds >= patience else Verdict.INCONCLUSIVE, evidence=evidence)


def _crashed(readings: Sequence[Measurements]) -> list[str]:
    """Instances that were started again since a reading that had them."""
    first_runs = {one.name: one.run for reading in reversed(readings) for one in reading.instances if one.run}
    return [one.name for one in readings[-1].instances if one.run and one.run != first_runs[one.name]]


def _starting(readings: Sequence[Measurements]) -> int:
    """Number of present instances that came later and were not ready yet."""
    first = next(reading for reading in readings if reading.instances)
    known = {one.name for one in first.instances} | {
        one.name for reading in readings for one in reading.instances if one.ready
    }
    return sum(one.name not in known for one in readings[-1].instances)


def _ready(reading: Measurements) -> int:
    return sum(one.ready for one in reading.instances)


def _too_few_since(readings: Sequence[Measurements], wanted: int) -> datetime:
    """Time since which fewer than `wanted` have been ready without a break."""
    since = readings[-1].at
    for reading in reversed(readings):
        if _ready(reading) >= wanted:
            break
        since = reading.at
    return since


def _reason(first: Measurements, last: Measurements) -> str:
    """One that is not ready and why; else those that are gone."""
    for one in last.instances:
        if not one.ready:
            return f"{one.name}: {one.detail}"
    present = {one.name for one in last.instances}
    return ", ".join(f"{one.name}: it is gone" for one in first.instances if one.name not in present)
