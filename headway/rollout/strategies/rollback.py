"""The way back: a rollout of the previous revision on the fast path. No pauses, no analysis, one Route."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain.plan import AwaitReady, Drain, Launch, Plan, Promote, Retire, Route, Step
from headway.domain.traffic import Observation, Traffic

__all__ = ["rollback"]

MOST = 50  # percent of the traffic


def rollback(observation: Observation, to: str | None, *, instances: int, startup: float, drain: float) -> Plan:
    """Bring an environment to revision `to`, or to nothing when there was none before.

    The old revision gets all traffic only when `instances` of it are ready: traffic on an undersized set is an outage
    of its own. One that has most of the traffic already gets the rest at once; when none of it is ready, whoever else
    is serves everybody meanwhile. Everything else is drained and stopped afterwards. On an environment that is there
    already the plan has no steps.
    """
    others = [revision for revision, running in sorted(observation.instances.items()) if running and revision != to]
    steps: list[Step] = []
    traffic = observation.traffic
    if to is not None and observation.ready(to) < instances:
        meanwhile = _meanwhile(observation, to, others)
        if meanwhile is not None and traffic != meanwhile:
            steps.append(Route(traffic=meanwhile))
            traffic = meanwhile
        steps.append(Launch(revision=to, instances=instances))
        steps.append(AwaitReady(revision=to, instances=instances, deadline=startup))
    wanted = Traffic.all_to(to) if to is not None else Traffic()
    if traffic != wanted:
        steps.append(Route(traffic=wanted))
    for revision in others:
        steps += [Drain(revision=revision, deadline=drain), Retire(revision=revision, drained=True)]
    if steps and to is not None:
        steps.append(Promote(revision=to))
    return Plan(strategy="rollback", new=to or "", old=observation.live, steps=tuple(steps))


def _meanwhile(observation: Observation, to: str, others: Sequence[str]) -> Traffic | None:
    """Who serves until enough of the old revision is ready; None: whoever does now."""
    weight = observation.traffic.weights.get(to, 0)
    if weight >= MOST and observation.ready(to):
        return Traffic.all_to(to)
    standing = max(others, key=observation.ready, default=None)
    if weight and not observation.ready(to) and standing is not None and observation.ready(standing):
        return Traffic.all_to(standing)
    return None
