"""Instances that crash or turn unhealthy while they are watched: users may not notice, because every retry hides it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from headway.domain.measurements import Measurements, Verdict
from headway.domain.traffic import Instance
from headway.rollout.analysis.thresholds import Judgement

__all__ = ["steadiness"]

UNHEALTHY = 5.0  # seconds; the proxy has asked several times by then


def steadiness(readings: Sequence[Measurements]) -> Judgement | None:
    """Judge what the instances did since the first of `readings`; None when the target does not tell of them.

    One that was started again has crashed: a fail. One that is unhealthy is no pass, and after a while a fail.
    """
    first = next((reading for reading in readings if reading.instances), None)
    if first is None:
        return None
    now = {instance.name: instance for instance in readings[-1].instances}
    crashed = [one.name for one in first.instances if _started_again(one, now.get(one.name))]
    if crashed:
        return Judgement(verdict=Verdict.FAIL, evidence=f"{', '.join(crashed)} crashed and was started again")
    unhealthy = {one.name: _unhealthy_since(one.name, readings) for one in first.instances}
    ill = {name: since for name, since in unhealthy.items() if since is not None}
    if not ill:
        return Judgement(verdict=Verdict.PASS, evidence=f"{len(first.instances)} instances healthy")
    name, since = min(ill.items(), key=lambda item: item[1])
    seconds = (readings[-1].at - since).total_seconds()
    detail = now[name].detail if name in now else "it is gone"
    told = f"{len(ill)} of {len(first.instances)} instances unhealthy for {seconds:.1f} s: {name}: {detail}"
    return Judgement(verdict=Verdict.FAIL if seconds >= UNHEALTHY else Verdict.INCONCLUSIVE, evidence=told)


def _started_again(before: Instance, now: Instance | None) -> bool:
    return now is not None and None not in (before.run, now.run) and now.run != before.run


def _unhealthy_since(name: str, readings: Sequence[Measurements]) -> datetime | None:
    """Since when it has been so, up to now; None when it is healthy."""
    since = None
    for reading in reversed(readings):
        seen = next((one for one in reading.instances if one.name == name), None)
        if seen is not None and seen.ready:
            break
        since = reading.at
    return since
