"""Weights by the number of pods: the nearest possible split without weighted routing."""

from __future__ import annotations

from collections.abc import Mapping

from headway.domain.plan import Launch, Plan, Rehearse, Retire, Route

__all__ = ["nearest", "remarks", "weights"]

WHOLE = 100  # percent


def nearest(wanted: Mapping[str, int], ready: Mapping[str, int]) -> dict[str, int]:
    """Number of pods of each revision that share the traffic, for the split nearest to the wanted one.

    `wanted` in percent, with one or two revisions above 0; `ready` pods of each, at least 1. Every revision with a
    weight keeps at least one pod. Of equally near splits, the one with the most pods is used, to keep
    capacity.
    """
    sharing = [revision for revision, weight in wanted.items() if weight]
    if len(sharing) == 1:
        return {sharing[0]: ready[sharing[0]]}
    one, other = sharing
    pairs = ((a, b) for a in range(1, ready[one] + 1) for b in range(1, ready[other] + 1))
    best = min(pairs, key=lambda pair: (abs(pair[0] / sum(pair) - wanted[one] / WHOLE), -sum(pair)))
    return dict(zip(sharing, best, strict=True))


def weights(pods: Mapping[str, int]) -> dict[str, int]:
    """Weights in percent for these numbers of pods. They sum to 100; empty without pods."""
    total = sum(pods.values())
    if not total:
        return {}
    *rest, last = (revision for revision, number in pods.items() if number)
    shares = {revision: round(WHOLE * pods[revision] / total) for revision in rest}
    return shares | {last: WHOLE - sum(shares.values())}


def remarks(plan: Plan, running: Mapping[str, int]) -> tuple[str, ...]:
    """Lines on weights of a plan that are rounded. `running`: number of pods of each revision now."""
    pods, found = dict(running), list[str]()
    for step in plan.steps:
        match step:
            case Launch():
                pods[step.revision] = max(pods.get(step.revision, 0), step.instances)
            case Retire():
                pods[step.revision] = step.keep
            case Route(traffic=traffic) | Rehearse(low=traffic):
                sharing = {revision: weight for revision, weight in traffic.weights.items() if weight}
                if len(sharing) < 2 or not all(pods.get(revision) for revision in sharing):
                    continue
                can = weights(nearest(sharing, pods))
                if can != sharing:
                    number = sum(pods[revision] for revision in sharing)
                    split = ", ".join(f"{revision} {weight} %" for revision, weight in can.items())
                    found.append(f"{traffic}: the nearest that {number} pods can do is {split}")
    return tuple(dict.fromkeys(found))
