"""Rolling: replace instances step by step; both revisions serve meanwhile."""

from __future__ import annotations

from headway.domain.plan import Analyze, Plan, Retire, Route, Step
from headway.domain.traffic import Traffic
from headway.rollout.strategies.context import Situation

__all__ = ["rolling"]


def rolling(at: Situation, *, max_surge: int, max_unavailable: int, analyze: Analyze | None = None) -> Plan:
    """At most `instances + max_surge` run and at least `instances - max_unavailable` are ready at any time.

    Weights follow the number of instances. The new revision is analyzed twice: with its first share, and with all of
    the traffic. The last old instances stop after that. When both limits are 0, one instance may be unavailable:
    nothing could be replaced otherwise.
    """
    most, least = at.instances + max_surge, at.instances - (max_unavailable if max_surge else max(max_unavailable, 1))
    steps: list[Step] = []
    new, old = 0, at.old_instances
    judged = False
    for _ in range(at.instances + at.old_instances):  # each pass starts or stops at least one instance
        if new == at.instances:
            break
        grow = min(at.instances - new, most - new - old)
        if grow > 0:
            new += grow
            steps += at.up(new)
        shrink = min(old, new + old - least)
        if grow > 0 and new < at.instances and at.old:
            watched = () if judged else at.judged(analyze)
            if watched or shrink <= 0:  # otherwise the next route follows at once
                steps += [Route(traffic=_split(at.new, new, at.old, old)), *watched]
            judged = True
        if new < at.instances and at.old and shrink > 0:
            old -= shrink
            if new or not old:
                # Without surge, the last old instance may stop before the first new one starts: then there is no
                # revision to route to.
                steps.append(Route(traffic=_split(at.new, new, at.old, old)))
            steps.append(Retire(revision=at.old, keep=old))
    return Plan(strategy="rolling", new=at.new, old=at.old, steps=(*steps, *at.switch(analyze), *at.down(at.old)))


def _split(new: str, new_instances: int, old: str, old_instances: int) -> Traffic:
    running = new_instances + old_instances
    if not running:
        return Traffic()
    share = round(100 * new_instances / running)
    weights = {new: share, old: 100 - share}
    return Traffic(weights={revision: weight for revision, weight in weights.items() if weight})
