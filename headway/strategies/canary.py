"""A growing share of the traffic, judged before each next step."""

from __future__ import annotations

from collections.abc import Sequence

from headway.model import Pause, Plan, Route, Step, Traffic
from headway.strategies.situation import Situation

__all__ = ["canary"]


def canary(at: Situation, *, steps: Sequence[tuple[int, float]]) -> Plan:
    """`steps` are (weight in percent, pause in seconds) and end at 100.

    Without an old revision there is nobody to share with.
    """
    shares: list[Step] = []
    if at.old is not None:
        for weight, pause in steps:
            if weight < 100:
                shares.append(Route(traffic=Traffic(weights={at.new: weight, at.old: 100 - weight})))
                shares += at.analysis(shared=True)
                shares += (Pause(seconds=pause),) if pause else ()
    return Plan(
        strategy="canary",
        new=at.new,
        old=at.old,
        steps=(*at.up(at.instances), *shares, *at.switch(), *at.down(at.old)),
    )
