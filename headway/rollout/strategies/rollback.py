"""Rollback: the previous revision without pauses and analysis, with one switch of the traffic."""

from __future__ import annotations

from collections.abc import Sequence

from headway.domain.plan import AwaitReady, Drain, Launch, Plan, Promote, Retire, Route, Step
from headway.domain.traffic import Observation, Traffic

__all__ = ["rollback"]

MAJORITY = 50  # percent of the traffic


def rollback(observation: Observation, to: str | None, *, instances: int, startup: float, drain: float) -> Plan:
    """Bring an environment to revision `to`, or to nothing when there was none before.

    Revision `to` gets all traffic when `instances` of it are ready: too few instances under all traffic are an outage,
    too. If it has most of the traffic already, it gets the rest at once. If none of its instances is ready, another
    revision with ready instances serves all traffic meanwhile. Every other revision is drained and stopped afterwards.
    The plan has no steps when nothing has to change.
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
    if to is not None and (steps or others):
        steps.append(Promote(revision=to))
    for revision in others:
        steps += [Drain(revision=revision, deadline=drain), Retire(revision=revision, drained=True)]
    return Plan(strategy="rollback", new=to or "", old=observation.live, steps=tuple(steps))


def _meanwhile(observation: Observation, to: str, others: Sequence[str]) -> Traffic | None:
    """Traffic until enough instances of revision `to` are ready; None: it stays as it is."""
    weight = observation.traffic.weights.get(to, 0)
    if weight >= MAJORITY and observation.ready(to):
        return Traffic.all_to(to)
    ready_one = max(others, key=observation.ready, default=None)
    if weight and not observation.ready(to) and ready_one is not None and observation.ready(ready_one):
        return Traffic.all_to(ready_one)
    return None
