"""The way back: a rollout of the previous revision on the fast path. No pauses, no analysis, one Route."""

from __future__ import annotations

from headway.model import AwaitReady, Drain, Launch, Observation, Plan, Promote, Retire, Route, Step, Traffic

__all__ = ["rollback"]


def rollback(observation: Observation, to: str | None, *, instances: int, startup: float, drain: float) -> Plan:
    """Bring an environment to revision `to`, or to nothing when there was none before.

    The old revision gets all traffic only when `instances` of it are ready: traffic on an undersized set is an outage
    of its own. When none of it is, whoever else is ready serves everybody meanwhile. Everything else is drained and
    stopped afterwards. On an environment that is there already the plan has no steps.
    """
    others = [revision for revision, running in sorted(observation.instances.items()) if running and revision != to]
    steps: list[Step] = []
    if to is not None and observation.traffic.weights.get(to) and not observation.ready(to):
        standing = max(others, key=observation.ready, default=None)
        if standing is not None and observation.ready(standing):
            steps.append(Route(traffic=Traffic.all_to(standing)))
    if to is not None and observation.ready(to) < instances:
        steps.append(Launch(revision=to, instances=instances))
        steps.append(AwaitReady(revision=to, instances=instances, deadline=startup))
    wanted = Traffic.all_to(to) if to is not None else Traffic()
    if steps or observation.traffic != wanted:
        steps.append(Route(traffic=wanted))
    for revision in others:
        steps += [Drain(revision=revision, deadline=drain), Retire(revision=revision, drained=True)]
    if steps and to is not None:
        steps.append(Promote(revision=to))
    return Plan(strategy="rollback", new=to or "", old=observation.live, steps=tuple(steps))
