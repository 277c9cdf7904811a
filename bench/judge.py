"""Measure the canary judge's detection delay and false alarm rate: `python bench/judge.py`.

The load is 100 requests/s, 5 % of them to the canary. The judge looks once a second, with an error budget of 1 %. Each
fault is present from the first request. `bench/judge.py d` runs one part. The baselines are in `judge_anchors.py`.

(a) Two identical versions, 10,000 looks: the share of false alarms must stay within the budget.
(b) Canary requests until the alarm, divided by Wald's bound log(1/budget) / KL(p1 || p0). No sequential test can beat
this bound, even if it knows both rates. Baseline, on the same data: the plain e-process with a Beta mixture for each
version (Turner, Ly, Grünwald 2024).
(c) Share of faults found, by fault size: a larger fault must not be found less often. Baseline: Kayenta's rule, applied
once to an hour of one-minute error rates (spinnaker/kayenta a69573b, NetflixACAJudge and MannWhitney: 98 %, High when
the lower end of the shift exceeds a quarter of its estimate; direction "increase", no outliers removed). Kayenta's
tolerance grows with the estimate, so its share falls when each minute is either good or bad. The second table shows
this: errors in 5 % of the stable version's minutes, and in a growing share of the canary's minutes. Its first row, with
the same share of bad minutes in both versions, is no fault, but the judge's budget does not cover it: the judge assumes
that requests fail independently, and requests in a minute that is bad for one version only do not.
(d) Failed responses until the abort: all errors that the canary returned, not only those in excess of the stable
version's, and none after the verdict. Argo Rollouts: a measurement every 60 s, success rate of the last 60 s >= 95 %,
failureLimit 3, so the 4th failed measurement aborts (the example in docs/features/analysis.md, with an interval of
1 min instead of 5; if the first measurement ran at once and failed, the abort would take three minutes instead of
four). Flagger: 1 min x 10 failed checks, success rate >= 99 % (the example in its README; "interval * threshold" in
docs/gitbook/usage/deployment-strategies.md). Kayenta: as in (c), every minute from the 50th point on, pass 95, marginal
75. In runs where a baseline does not find the fault, all errors served in two hours count. A baseline that never finds
it is left out.
(e) Latency in whole milliseconds, lognormal, median 60 ms, in Envoy's buckets; 2,000 requests of the stable version are
known beforehand. The faults: the slowest 2 % take twice as long; all requests take 1.5 times as long; 5 % take one
second longer; and an error rate that rises slowly. A run without a fault counts the false alarms. There is no baseline
besides the budget: other tools compare latency with a configured limit (Flagger's example: p99 <= 500 ms).
"""

from __future__ import annotations

import math
import platform
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from multiprocessing import Pool
from multiprocessing.pool import Pool as Processes

import numpy as np
from judge_anchors import HOURS, Ended, argo, flagger, kayenta, kayenta_high

from headway.domain.measurements import Bucket, RequestCounts
from headway.rollout.analysis.sequential_test import Tally

BUDGET = 0.01
CANARY, STABLE = 5, 95  # requests in a look
LOOKS, RUNS = 10_000, 200
TRIALS = 500  # runs for each share: its standard error is then about 2 %
FAULTS = ((0.01, 0.05), (0.001, 0.01), (0.005, 0.006))


class BetaMixture:
    """The alternative: each version's rate has its own Beta(1/2, 1/2) prior. The null: both share one rate."""

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
    """Headway's own test, unchanged."""

    def __init__(self) -> None:
        self._tally = Tally()

    def alarm(self, canary: int, stable: int) -> bool:
        self._tally = self._tally.after(
            RequestCounts.model_construct(requests=CANARY, errors=canary),
            RequestCounts.model_construct(requests=STABLE, errors=stable),
        )
        return self._tally.alarm(BUDGET)


def _marginal(n: int, x: int) -> float:
    return math.lgamma(x + 0.5) + math.lgamma(n - x + 0.5) - math.lgamma(n + 1) - math.log(math.pi)


def looks(seed: int, canary: float, stable: float, number: int) -> Iterator[tuple[int, int]]:
    """Errors of the canary and of the stable version in each look."""
    chance = random.Random(seed)
    return ((_binomial(chance, CANARY, canary), _binomial(chance, STABLE, stable)) for _ in range(number))


def _binomial(chance: random.Random, n: int, p: float) -> int:
    """Draw the gaps between errors: errors are rare, so this is faster than one draw for each request."""
    if p in (0.0, 1.0):
        return n if p else 0
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


# --- baselines -------------------------------------------------------------------------------------------------------


def share_found(pool: Processes) -> None:
    print("(c) stable 1 %: found within ten minutes, within an hour; by Kayenta's rule in an hour")
    rates = (0.01, 0.012, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2)
    shares = [
        _shares(
            pool.starmap(until_alarm, [(Judge, seed, rate, 0.01, 3600) for seed in range(TRIALS)]),
            pool.starmap(kayenta_on_rates, [(seed, rate) for seed in range(TRIALS)]),
        )
        for rate in rates
    ]
    _table([f"canary {100 * rate:4.1f} %{' (no fault)' * (rate == 0.01):11}" for rate in rates], shares)
    print("(c) the same with 5 % errors in bad minutes and none in others, 5 % of stable's minutes bad")
    bad = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
    shares = [
        _shares(
            pool.starmap(until_alarm_in_bursts, [(seed, share) for seed in range(TRIALS)]),
            pool.starmap(kayenta_on_bursts, [(seed, share) for seed in range(TRIALS)]),
        )
        for share in bad
    ]
    _table([f"{100 * share:3.0f} % bad minutes{' (no fault)' * (share == 0.05):11}" for share in bad], shares)


def _shares(ours: list[int], theirs: list[bool]) -> tuple[float, float, float]:
    return sum(n <= 600 for n in ours) / TRIALS, sum(n <= 3600 for n in ours) / TRIALS, sum(theirs) / TRIALS


def _table(names: list[str], shares: list[tuple[float, float, float]]) -> None:
    for name, (soon, hour, theirs) in zip(names, shares, strict=True):
        print(f"    {name}: {soon:6.1%}, {hour:6.1%}; Kayenta {theirs:6.1%}")
    falls = [max(0.0, *(one - next_ for one, next_ in pairwise(column))) for column in zip(*shares, strict=True)]
    print("    largest fall from one size to the next: {:.1%}, {:.1%}; Kayenta {:.1%}".format(*falls))


def kayenta_on_rates(seed: int, canary: float) -> bool:
    chance = np.random.default_rng(seed)
    new, old = (chance.binomial(60 * n, p, 60) / (60 * n) for n, p in ((CANARY, canary), (STABLE, 0.01)))
    return kayenta_high(new, old)


def bad_minutes(seed: int, canary: float) -> tuple[list[float], list[float]]:
    """Error rates of an hour's minutes, of the canary and of the stable version."""
    chance = np.random.default_rng(seed)
    new, old = (np.where(chance.random(60) < share, 0.05, 0.0).tolist() for share in (canary, 0.05))
    return new, old


def kayenta_on_bursts(seed: int, canary: float) -> bool:
    new, old = bad_minutes(seed, canary)
    return kayenta_high(np.array(new), np.array(old))


def until_alarm_in_bursts(seed: int, canary: float) -> int:
    chance, judge = random.Random(seed), Judge()
    new, old = bad_minutes(seed, canary)
    for number in range(3600):
        p1, p0 = new[number // 60], old[number // 60]
        if judge.alarm(_binomial(chance, CANARY, p1), _binomial(chance, STABLE, p0)):
            return number + 1
    return 3601


def headway(seed: int, canary: float, stable: float) -> Ended:
    judge, served = Judge(), 0
    for x1, x0 in looks(seed, canary, stable, 3600 * HOURS):
        served += x1
        if judge.alarm(x1, x0):
            return Ended(served, found=True)
    return Ended(served, found=False)


def bad_answers(pool: Processes) -> None:
    stable = 0.001
    for rate in (0.05, 0.2, 0.5, 1.0):
        ours = pool.starmap(headway, [(seed, rate, stable) for seed in range(RUNS)])
        others = {
            "Argo": pool.starmap(argo, [(seed, rate, 60 * CANARY) for seed in range(RUNS)]),
            "Flagger": pool.starmap(flagger, [(seed, rate, 60 * CANARY) for seed in range(RUNS)]),
            "Kayenta": pool.starmap(kayenta, [(s, rate, 60 * CANARY, stable, 60 * STABLE) for s in range(RUNS)]),
        }
        served = _served(ours)
        print(f"(d) canary {100 * rate:g} %: Headway {served:,.1f} errors, found in {_found(ours)} of {RUNS}")
        for name, runs in others.items():
            ratio = f"{_served(runs) / served:.0f} x" if _found(runs) else "never found, not a baseline"
            print(f"    {name:8} {_served(runs):10,.1f} ({ratio}), found in {_found(runs)}")
        best = min(_served(runs) for runs in others.values() if _found(runs))
        print(f"    the best of them {best / served:.1f} x: 10 x {'met' if best >= 10 * served else 'missed'}")


def _served(runs: list[Ended]) -> float:
    return statistics.mean(run.served for run in runs)


def _found(runs: list[Ended]) -> int:
    return sum(run.found for run in runs)


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


def histogram(took: np.ndarray[tuple[int], np.dtype[np.int64]]) -> RequestCounts:
    """Count in Envoy's buckets: two significant digits."""
    width = np.where(took < 100, 1, np.where(took < 1000, 10, 100))
    found: dict[tuple[int, int], int] = {}
    for lower, wide in zip((took // width * width).tolist(), width.tolist(), strict=True):
        found[lower, wide] = found.get((lower, wide), 0) + 1
    buckets = [Bucket(lower / 1000, (lower + wide) / 1000, number) for (lower, wide), number in sorted(found.items())]
    return RequestCounts.model_construct(requests=len(took), errors=0, latency=tuple(buckets))


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
    runs = pool.starmap(partial(until_slow, ""), [(seed, LOOKS) for seed in range(RUNS // 2)])
    false = sum(number <= LOOKS for number in runs)
    print(f"(e) no fault: false alarms in {false} of {len(runs)} x {LOOKS} looks, {false / len(runs):.1%}")
    for fault in ("tail x 2", "all x 1.5", "5 % + 1 s"):
        _print_found(fault, pool.starmap(partial(until_slow, fault), [(seed, 600) for seed in range(RUNS)]))
    _print_found("1 % of errors, rising to 5 %", pool.starmap(until_risen, [(seed, 600) for seed in range(RUNS)]))


def _print_found(fault: str, runs: list[int]) -> None:
    found = sum(number <= 600 for number in runs) / len(runs)
    middle = statistics.median(runs)
    when = f"in the median after {middle:g} looks" if middle <= 600 else "not in the median"
    print(f"(e) {fault}: found within 600 looks in {found:.1%} of {len(runs)}, {when}")


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
    print("goals: false alarms at most 1 %, mean at most 2.5 x the bound, 10 x fewer errors")


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of one request."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


if __name__ == "__main__":
    main()
