"""Baselines of judge.py: the decision rules of Argo Rollouts, Flagger and Kayenta.

Kayenta's interval for the shift is the set of shifts that a Mann-Whitney test of the shifted points does not reject,
by the normal approximation with corrections for ties and continuity. Kayenta searches its ends with Brent's method
(1973, "Algorithms for Minimization without Derivatives", chapter 4) to 0.0001 of the metric's unit. This file does the
same: the test statistic jumps where points are tied, and the verdict depends on the side of the jump where the search
ends.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

HOURS = 2  # the longest run; a fault that is not found by then counts as missed
Z = statistics.NormalDist().inv_cdf(0.99)  # 98 %, two-sided
TOLERANCE = 0.25  # of the Hodges-Lehmann estimate
PRECISION = 1e-4
WANTED = 50  # points


class Ended(NamedTuple):
    """Errors that the canary returned until the abort, or until the end of a run without an abort."""

    served: int
    found: bool


class AllTiedError(Exception):
    """All points are equal. Kayenta leaves such a metric out of its score."""


# --- Argo Rollouts and Flagger ---------------------------------------------------------------------------------------


def argo(seed: int, canary: float, requests: int) -> Ended:
    """`requests` a minute to the canary; the 4th failed measurement is more than the failureLimit of 3."""
    return _failures_counted(seed, canary, requests, success=0.95, until=4)


def flagger(seed: int, canary: float, requests: int) -> Ended:
    return _failures_counted(seed, canary, requests, success=0.99, until=10)


def _failures_counted(seed: int, canary: float, requests: int, *, success: float, until: int) -> Ended:
    chance = np.random.default_rng(seed)
    served = failed = 0
    for errors in chance.binomial(requests, canary, 60 * HOURS).tolist():
        served += errors
        failed += requests - errors < success * requests
        if failed == until:
            return Ended(served, found=True)
    return Ended(served, found=False)


# --- Kayenta ---------------------------------------------------------------------------------------------------------


def kayenta(seed: int, canary: float, canary_requests: int, stable: float, stable_requests: int) -> Ended:
    """Judge every minute, once there are enough points. The only metric being High gives a score of 0, below 75."""
    chance = np.random.default_rng(seed)
    errors = chance.binomial(canary_requests, canary, 60 * HOURS)
    new = errors / canary_requests
    old = chance.binomial(stable_requests, stable, 60 * HOURS) / stable_requests
    for minutes in range(WANTED, 60 * HOURS + 1):
        if kayenta_high(new[:minutes], old[:minutes]):
            return Ended(int(errors[:minutes].sum()), found=True)
    return Ended(int(errors.sum()), found=False)


def kayenta_high(canary: Points, stable: Points) -> bool:
    """Whether the metric is High: the shift's lower end beyond the tolerance, and the mean not below stable's."""
    if np.array_equal(np.sort(canary), np.sort(stable)):
        return False
    try:
        lower, estimate = shift_of(canary, stable)
    except AllTiedError:
        return False
    return lower > TOLERANCE * abs(estimate) and (not stable.any() or bool(canary.mean() >= stable.mean()))


def shift_of(canary: Points, stable: Points) -> tuple[float, float]:
    """Lower end of the shift's 98 % interval, and the Hodges-Lehmann estimate of it."""
    least, most = float(canary.min() - stable.max()), float(canary.max() - stable.min())

    def beyond(shift: float) -> float:
        return mann_whitney(canary - shift, stable) - Z

    if beyond(least) <= 0:
        lower = least
    elif beyond(most) >= 0:
        lower = most
    else:
        lower = brent(beyond, least, most)
    return lower, brent(lambda shift: mann_whitney(canary - shift, stable), least, most)


def mann_whitney(one: Points, other: Points) -> float:
    """The rank sum of `one` as a standard normal deviate, with corrections for ties and continuity."""
    n, m = len(one), len(other)
    _, place, ties = np.unique(np.concatenate([one, other]), return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2
    above = float(ranks[place[:n]].sum()) - n * (n + 1) / 2 - n * m / 2
    together = n + m
    variance = n * m / 12 * (together + 1 - float((ties**3 - ties).sum()) / (together * (together - 1)))
    if variance == 0:
        raise AllTiedError
    return (above - 0.5 * float(np.sign(above))) / math.sqrt(variance)


def brent(function: Callable[[float], float], a: float, b: float) -> float:
    """A zero of `function` between `a` and `b`, `b` the best guess throughout."""
    fa, fb = function(a), function(b)
    if fa == 0:
        return a
    c, fc = a, fa
    while True:
        before = b - a
        if abs(fc) < abs(fb):
            a, b, c = b, c, b
            fa, fb, fc = fb, fc, fb
        near = 2 * np.finfo(float).eps * abs(b) + PRECISION / 2
        step = (c - b) / 2
        if abs(step) <= near or fb == 0:
            return b
        if abs(before) >= near and abs(fa) > abs(fb):
            p, q = _interpolated(a, b, c, fa, fb, fc)
            if p < 0.75 * (c - b) * q - abs(near * q) / 2 and p < abs(before * q / 2):
                step = p / q
        a, fa = b, fb
        b += step if abs(step) >= near else math.copysign(near, step)
        fb = function(b)
        if fb * fc > 0:
            c, fc = a, fa


def _interpolated(a: float, b: float, c: float, fa: float, fb: float, fc: float) -> tuple[float, float]:
    """The step from `b` as a fraction with p >= 0: by the secant, or through all three points."""
    if a == c:
        p, q = (c - b) * fb / fa, 1 - fb / fa
    else:
        p = fb / fa * ((c - b) * fa / fc * (fa / fc - fb / fc) - (b - a) * (fb / fc - 1))
        q = (fa / fc - 1) * (fb / fc - 1) * (fb / fa - 1)
    return (p, -q) if p > 0 else (-p, q)
