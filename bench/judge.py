"""How soon the judge of a canary sees a fault, and how often it sees one that is not there: `python bench/judge.py`.

100 requests a second, 5 % of them to the canary, a look every second, a budget of 1 %. `bench/judge.py d` runs one
part.

(a) Identical versions, 10,000 looks: false alarms must stay within the budget.
(b) Requests of the canary until the alarm, over Wald's bound log(1/budget) / KL(p1 || p0), which no sequential test can
beat even when it knows both rates. Beside it in the same run, on the same data: the plain e-process with a Beta mixture
for each version (Turner, Ly, Grünwald 2024).
(c) Share of faults found within ten minutes, by their size; beside it Kayenta's rule on an hour of one-minute points:
Mann-Whitney, 98 %, a shift counts when its lower end exceeds a quarter of the Hodges-Lehmann estimate.
(d) Bad answers served until the abort, beside Argo's default style (an interval of 60 s, success rate >= 95 %, the 4th
failed measurement aborts), Flagger's (1 min x 10, success rate >= 99 %) and Kayenta's (as above, once there are 50
points).
(e) Latency: twice the tail, everything half as slow again, a second mode; and an error rate that rises slowly.
"""

from __future__ import annotations

import math
import platform
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import Pool
from multiprocessing.pool import Pool as Processes

import numpy as np

from headway.analysis.sequential import Tally
from headway.model import Bucket, Counts

BUDGET = 0.01
CANARY, STABLE = 5, 95  # requests in a look
LOOKS, RUNS = 10_000, 200
FAULTS = ((0.01, 0.05), (0.001, 0.01), (0.005, 0.006))


class BetaMixture:
    """Each version's rate from its own Beta(1/2, 1/2), against one rate of both."""

    def __init__(self) -> None:
        self._counts = [0, 0, 0, 0]  # requests and errors of the canary, then of the stable version

    def alarm(self, canary: int, stable: int) -> bool:
        for place, number in enumerate((CANARY, canary, STABLE, stable)):
            self._counts[place] += number
        n1, x1, n0, x0 = self._counts
        if x1 * n0 <= x0 * n1:
            return False
        p = (x1 + x0) / (n1 + n0)
        null = (x1 + x0) * math.log(p) + (n1 + n0 - x1 - x0) * math.log1p(-p) if 0 < p < 1 else 0.0
        return _marginal(n1, x1) + _marginal(n0, x0) - null >= math.log(1 / BUDGET)


class Judge:
    """Headway's, as it is."""

    def __init__(self) -> None:
        self._tally = Tally()

    def alarm(self, canary: int, stable: int) -> bool:
        self._tally = self._tally.after(
            Counts.model_construct(requests=CANARY, errors=canary),
            Counts.model_construct(requests=STABLE, errors=stable),
        )
        return self._tally.alarm(BUDGET)


def _marginal(n: int, x: int) -> float:
    return math.lgamma(x + 0.5) + math.lgamma(n - x + 0.5) - math.lgamma(n + 1) - math.log(math.pi)


def looks(seed: int, canary: float, stable: float, number: int) -> Iterator[tuple[int, int]]:
    """Errors of the canary and of the stable version in each look."""
    chance = random.Random(seed)
    return ((_binomial(chance, CANARY, canary), _binomial(chance, STABLE, stable)) for _ in range(number))


def _binomial(chance: random.Random, n: int, p: float) -> int:
    """By the gaps between errors, which are few."""
    if p == 1.0:
        return n
    errors, at = 0, 0
    while True:
        at += int(math.log(1.0 - chance.random()) / math.log1p(-p)) + 1
        if at > n:
            return errors
        errors += 1


def until_alarm(make: Callable[[], Judge | BetaMixture], seed: int, canary: float, stable: float, most: int) -> int:
    """Looks until the alarm; `most` + 1 when there was none."""
    judge = make()
    for number, (x1, x0) in enumerate(looks(seed, canary, stable, most), 1):
        if judge.alarm(x1, x0):
            return number
    return most + 1


def false_alarms(pool: Processes) -> None:
    for rate in (0.001, 0.01, 0.05):
        same = pool.starmap(until_alarm, [(Judge, seed, rate, rate, LOOKS) for seed in range(RUNS)])
        false = sum(number <= LOOKS for number in same)
        print(f"(a) both {100 * rate:g} %: false alarms in {false} of {RUNS} x {LOOKS} looks, {false / RUNS:.1%}")


def over_walds_bound(pool: Processes) -> None:
    for stable, canary in FAULTS:
        bound = math.log(1 / BUDGET) / _divergence(canary, stable)
        most = int(20 * bound / CANARY) + 1
        print(f"(b) {100 * stable:g} % -> {100 * canary:g} %, bound {bound:,.0f} requests of the canary")
        for make in (Judge, BetaMixture):
            runs = pool.starmap(until_alarm, [(make, seed, canary, stable, most) for seed in range(RUNS)])
            needed = sorted(number * CANARY for number in runs)
            mean, p95 = statistics.mean(needed), needed[int(0.95 * RUNS)]
            missed = sum(number > most for number in runs)
            print(
                f"    {make.__name__:12} mean {mean:10,.0f} ({mean / bound:.2f} x)   "
                f"p95 {p95:10,.0f} ({p95 / bound:.2f} x)   missed {missed}"
            )


# --- what others do --------------------------------------------------------------------------------------------------


def kayenta_finds(canary: list[float], stable: list[float]) -> bool:
    """Mann-Whitney's interval of the shift, inverted by its normal approximation with the correction for ties."""
    n, m = len(canary), len(stable)
    shifts = np.sort(np.subtract.outer(np.array(canary), np.array(stable)).ravel())
    _, ties = np.unique(np.array(canary + stable), return_counts=True)
    together = n + m
    spread = math.sqrt(n * m / 12 * (together + 1 - float((ties**3 - ties).sum()) / (together * (together - 1))))
    z = statistics.NormalDist().inv_cdf(0.99)  # 98 %, two-sided
    lower = shifts[max(0, int(n * m / 2 - z * spread))]
    estimate = float(np.median(shifts))
    return bool(lower > 0.25 * abs(estimate))


def rates(chance: np.random.Generator, rate: float, requests: int, minutes: int) -> list[float]:
    """Error rates of one-minute points."""
    return [float(x) for x in chance.binomial(requests * 60, rate, minutes) / (requests * 60)]


def kayenta_share(seed: int, canary: float, stable: float) -> bool:
    chance = np.random.default_rng(seed)
    return kayenta_finds(rates(chance, canary, CANARY, 60), rates(chance, stable, STABLE, 60))


def argo(seed: int, canary: float, _: float) -> int | None:
    """Errors served until the abort; None: it was never aborted in two hours."""
    return _counted_failures(seed, canary, threshold=0.05, allowed=3)


def flagger(seed: int, canary: float, _: float) -> int | None:
    return _counted_failures(seed, canary, threshold=0.01, allowed=9)


def _counted_failures(seed: int, canary: float, *, threshold: float, allowed: int) -> int | None:
    chance = np.random.default_rng(seed)
    served = failed = 0
    for errors in chance.binomial(CANARY * 60, canary, 120):
        served += int(errors)
        failed += errors > threshold * CANARY * 60
        if failed > allowed:
            return served
    return None


def kayenta(seed: int, canary: float, stable: float) -> int | None:
    chance = np.random.default_rng(seed)
    new, old = rates(chance, canary, CANARY, 120), rates(chance, stable, STABLE, 120)
    for minutes in range(50, 121):
        if kayenta_finds(new[:minutes], old[:minutes]):
            return round(sum(new[:minutes]) * CANARY * 60)
    return None


def headway(seed: int, canary: float, stable: float) -> int | None:
    judge, served = Judge(), 0
    for x1, x0 in looks(seed, canary, stable, 7200):
        served += x1
        if judge.alarm(x1, x0):
            return served
    return None


def share_found(pool: Processes) -> None:
    print("(c) stable 1 %, found within ten minutes / by Kayenta's rule within an hour:")
    for rate in (0.01, 0.012, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2):
        ours = pool.starmap(until_alarm, [(Judge, seed, rate, 0.01, 600) for seed in range(RUNS)])
        theirs = pool.starmap(kayenta_share, [(seed, rate, 0.01) for seed in range(RUNS)])
        print(f"    canary {100 * rate:4.1f} %: {sum(n <= 600 for n in ours) / RUNS:6.1%} / {sum(theirs) / RUNS:6.1%}")
    print("    the same, when the canary is bad for some minutes of the hour only, all errors 5 % (stable: 3 minutes):")
    for bad in (3, 10, 24, 36, 48):
        theirs = pool.starmap(kayenta_bursts, [(seed, bad) for seed in range(RUNS)])
        print(f"    {bad:2} bad minutes: Kayenta {sum(theirs) / RUNS:6.1%}")


def kayenta_bursts(seed: int, bad: int) -> bool:
    """Error rates that are 0 but for some minutes."""
    chance = np.random.default_rng(seed)

    def points(minutes: int) -> list[float]:
        found = np.zeros(60)
        found[chance.permutation(60)[:minutes]] = 0.05
        return [float(x) for x in found]

    return kayenta_finds(points(bad), points(3))


def bad_answers(pool: Processes) -> None:
    for rate in (0.05, 0.2, 0.5, 1.0):
        told = []
        for judge in (headway, argo, flagger, kayenta):
            runs = pool.starmap(judge, [(seed, rate, 0.001) for seed in range(RUNS)])
            found = [served for served in runs if served is not None]
            told.append((judge.__name__, statistics.mean(found) if len(found) == RUNS else math.inf, len(found)))
        best = min(served for name, served, _ in told if name != "headway")
        words = ", ".join(f"{name} {served:,.1f} (found in {found} of {RUNS})" for name, served, found in told)
        print(f"(d) canary {100 * rate:g} %: bad answers until the abort: {words}: {best / told[0][1]:.0f} x fewer")


# --- latency ---------------------------------------------------------------------------------------------------------


def milliseconds(chance: np.random.Generator, number: int, fault: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    took = 60 * np.exp(0.5 * chance.standard_normal(number))
    if fault == "tail x 2":
        took = np.where(took > 60 * math.exp(0.5 * 2.054), 2 * took, took)  # the slowest 2 %
    if fault == "all x 1.5":
        took = 1.5 * took
    if fault == "5 % + 1 s":
        took = np.where(chance.random(number) < 0.05, took + 1000, took)
    return took.astype(np.int64)


def histogram(took: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Counts:
    """As Envoy counts: two significant digits."""
    width = np.where(took < 100, 1, np.where(took < 1000, 10, 100))
    found: dict[tuple[int, int], int] = {}
    for lower, wide in zip((took // width * width).tolist(), width.tolist(), strict=True):
        found[lower, wide] = found.get((lower, wide), 0) + 1
    buckets = [Bucket(lower / 1000, (lower + wide) / 1000, number) for (lower, wide), number in sorted(found.items())]
    return Counts.model_construct(requests=len(took), errors=0, latency=tuple(buckets))


def until_slow(fault: str, seed: int, most: int) -> int:
    """Looks until the alarm; `most` + 1 when there was none."""
    chance = np.random.default_rng(seed)
    tally = Tally(history=histogram(milliseconds(chance, 2000, "")).latency)
    for number in range(1, most + 1):
        tally = tally.after(histogram(milliseconds(chance, CANARY, fault)), histogram(milliseconds(chance, STABLE, "")))
        if tally.alarm(BUDGET):
            return number
    return most + 1


def until_risen(seed: int, most: int) -> int:
    """The canary's error rate rises from 1 to 5 % over ten minutes."""
    chance, judge = random.Random(seed), Judge()
    for number in range(1, most + 1):
        rate = 0.01 + 0.04 * min(1.0, number / 600)
        if judge.alarm(_binomial(chance, CANARY, rate), _binomial(chance, STABLE, 0.01)):
            return number
    return most + 1


def latency(pool: Processes) -> None:
    runs = pool.starmap(partial(until_slow, ""), [(seed, LOOKS) for seed in range(RUNS // 4)])
    print(f"(e) as fast: false alarms in {sum(n <= LOOKS for n in runs)} of {len(runs)} x {LOOKS} looks")
    for fault in ("tail x 2", "all x 1.5", "5 % + 1 s"):
        _told(fault, pool.starmap(partial(until_slow, fault), [(seed, 600) for seed in range(RUNS)]))
    _told("1 % of errors, rising to 5 %", pool.starmap(until_risen, [(seed, 600) for seed in range(RUNS)]))


def _told(fault: str, runs: list[int]) -> None:
    found = sum(number <= 600 for number in runs)
    print(
        f"(e) {fault}: found in {found} of {len(runs)} within 600 looks, in the median at {statistics.median(runs):g}"
    )


PARTS: dict[str, Callable[[Processes], None]] = {
    "a": false_alarms,
    "b": over_walds_bound,
    "c": share_found,
    "d": bad_answers,
    "e": latency,
}


def main() -> None:
    print(f"{platform.platform()}, Python {platform.python_version()}; 100 requests/s, 5 % to the canary")
    with Pool() as pool:
        for part in sys.argv[1:] or PARTS:
            PARTS[part](pool)
    print("goals: false alarms at most 1 %, mean at most 2.5 x the bound, 10 x fewer bad answers")


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler, of one request."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


if __name__ == "__main__":
    main()
