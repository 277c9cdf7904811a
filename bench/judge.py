"""How soon the judge of a canary sees a fault, and how often it sees one that is not there: `python bench/judge.py`.

100 requests a second, 5 % of them to the canary, a look every second. (a) Identical versions, 10,000 looks: false
alarms must stay within the budget of 1 %. (b) Requests of the canary until the alarm, over Wald's bound
log(1/budget) / KL(p1 || p0), which no sequential test can beat even when it knows both rates. Beside it in the same
run, on the same data: the plain e-process with a Beta mixture for each version (Turner, Ly, Grünwald 2024).
"""

from __future__ import annotations

import math
import platform
import random
import statistics
from collections.abc import Callable, Iterator
from multiprocessing import Pool

from headway.analysis.sequential import Tally
from headway.model import Counts

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


def main() -> None:
    print(f"{platform.platform()}, Python {platform.python_version()}; 100 requests/s, 5 % to the canary")
    with Pool() as pool:
        for rate in (0.001, 0.01, 0.05):
            same = pool.starmap(until_alarm, [(Judge, seed, rate, rate, LOOKS) for seed in range(RUNS)])
            false = sum(number <= LOOKS for number in same)
            print(f"(a) both {100 * rate:g} %: false alarms in {false} of {RUNS} x {LOOKS} looks, {false / RUNS:.1%}")
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
    print("goals: false alarms at most 1 %, mean at most 2.5 x the bound")


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler, of one request."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


if __name__ == "__main__":
    main()
