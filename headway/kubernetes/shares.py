"""Traffic by the number of pods: the nearest that can be had where nothing splits requests by weight."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["nearest", "weights"]

WHOLE = 100  # percent


def nearest(wanted: Mapping[str, int], ready: Mapping[str, int]) -> dict[str, int]:
    """How many pods of each revision share the traffic, so that it is split as nearly as wanted.

    `wanted` in percent, with one or two revisions above 0; `ready` pods of each, at least 1. Every revision with a
    weight keeps at least one pod. Of equally near splits the one with the most pods is taken: nobody is served by
    fewer than need be.
    """
    sharing = [revision for revision, weight in wanted.items() if weight]
    if len(sharing) == 1:
        return {sharing[0]: ready[sharing[0]]}
    one, other = sharing
    pairs = ((a, b) for a in range(1, ready[one] + 1) for b in range(1, ready[other] + 1))
    best = min(pairs, key=lambda pair: (abs(pair[0] / sum(pair) - wanted[one] / WHOLE), -sum(pair)))
    return dict(zip(sharing, best, strict=True))


def weights(pods: Mapping[str, int]) -> dict[str, int]:
    """What share of the traffic so many pods of each revision get, in percent; sums to 100, or is empty without any."""
    total = sum(pods.values())
    if not total:
        return {}
    *rest, last = (revision for revision, number in pods.items() if number)
    shares = {revision: round(WHOLE * pods[revision] / total) for revision in rest}
    return shares | {last: WHOLE - sum(shares.values())}
