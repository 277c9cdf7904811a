"""Instances that crash or become unhealthy during an analysis. Retries of the proxy hide that from users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headway.domain.measurements import Measurements, Verdict
from headway.domain.traffic import Instance
from headway.rollout.analysis.thresholds import Judgement

__all__ = ["steadiness"]

UNHEALTHY = 5.0  # seconds; the proxy has checked several times by then


def steadiness(readings: Sequence[Measurements]) -> Judgement | None:
    """Judge the instances since the first of `readings`; None when the target does not report instances.

    A restarted instance has crashed: a fail. An unhealthy one is inconclusive, and a fail after UNHEALTHY seconds.
    """
    first = next((reading for reading in readings if reading.instances), None)
    if first is None:
        return None
    now = {instance.name: instance for instance in readings[-1].instances}
    crashed = [one.name for one in first.instances if _started_again(one, now.get(one.name))]
    if crashed:
        return Judgement(verdict=Verdict.FAIL, evidence=f"{', '.join(crashed)} crashed and was restarted")
    unhealthy = {one.name: _unhealthy_since(one.name, readings) for one in first.instances}
    ill = {name: since for name, since in unhealthy.items() if since is not None}
    if not ill:
        return Judgement(verdict=Verdict.PASS, evidence=f"{len(first.instances)} instances healthy")
    name, since = min(ill.items(), key=lambda item: item[1])
    seconds = (readings[-1].at - since).total_seconds()
    detail = now[name].detail if name in now else "it is gone"
    evidence = f"{len(ill)} of {len(first.instances)} instances unhealthy for {seconds:.1f} s: {name}: {detail}"
    return Judgement(verdict=Verdict.FAIL if seconds >= UNHEALTHY else Verdict.INCONCLUSIVE, evidence=evidence)


def _started_again(before: Instance, now: Instance | None) -> bool:
    return now is not None and None not in (before.run, now.run) and now.run != before.run


def _unhealthy_since(name: str, readings: Sequence[Measurements]) -> datetime | None:
    """Time since which it has been unhealthy without a break; None when it is healthy."""
    since = None
    for reading in reversed(readings):
        seen = next((one for one in reading.instances if one.name == name), None)
        if seen is not None and seen.ready:
            break
        since = reading.at
    return since
