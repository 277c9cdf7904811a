"""Canary: a growing share of the traffic, with an analysis before each next step."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain.base import Frozen
from headway.domain.plan import Analyze, Gate, Pause, Plan, Rehearse, Route, Step
from headway.domain.traffic import HeaderRule, Traffic
from headway.rollout.strategies.context import Situation

__all__ = ["Share", "canary"]


class Share(Frozen):
    """One step: `weight` percent of the traffic, and all requests with one of the headers (name, value)."""

    weight: int
    then: Pause | Gate | None = None
    analyze: Analyze | None = None
    headers: tuple[tuple[str, str], ...] = ()


def canary(at: Situation, *, shares: Sequence[Share], sticky: bool = False, rehearse: float | None = None) -> Plan:
    """Raise the weight of the new revision to 100. Header rules hold until then.

    `rehearse` is the time in seconds that the rollback may take. Without an old revision there is only the last step.
    """
    *partial, last = shares
    steps: list[Step] = [*at.up(at.instances)]
    rules: tuple[HeaderRule, ...] = ()
    for share in partial if at.old is not None else ():
        assert at.old is not None
        rules += tuple(HeaderRule(name=name, value=value, revision=at.new) for name, value in share.headers)
        weights = {at.new: share.weight, at.old: 100 - share.weight}
        traffic = Traffic(weights=weights, headers=rules, sticky=sticky)
        if rehearse is not None and share is partial[0]:
            steps.append(Rehearse(low=traffic, back=at.before, within=rehearse))
        steps.append(Route(traffic=traffic))
        steps += at.judged(share.analyze)
        steps += [share.then] if share.then else []
    then = [last.then] if last.then and at.old is not None else []
    return Plan(
        strategy="canary",
        new=at.new,
        old=at.old,
        steps=(*steps, *at.switch(last.analyze, *then), *at.down(at.old)),
    )
