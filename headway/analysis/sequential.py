"""Is the canary worse than the stable version? A test that may look every second and keeps its false-alarm budget.

Of the requests that failed in one look, as many fall to the canary as if each had been drawn from all requests, when
the versions are equally good. So for a rate ratio r > 1 and the canary's share w of the requests of that look,
r**x / (w*r + 1 - w)**k, for x of k failures on the canary, has an expectation of at most 1: given k, x is
hypergeometric, whose convex functions have expectations no larger than the binomial's (Hoeffding 1963, theorem 4), and
smaller still when the canary is the better one. The error rate itself, which nobody knows, drops out. The product over
all looks is a test supermartingale, so is the mean over several r, and the chance that it ever reaches 1/budget is at
most the budget (Ville 1939; Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference"). Weights
may change between looks.

savvi and confseq test one rate, or two samples in equal numbers; neither has two arms of changing size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from headway.model import Counts

__all__ = ["Tally"]

RATIOS = (1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0)
# `ignore_below` is tested by itself: how much worse than that limit the canary's own error rate may be.
FACTORS = (1.2, 1.6, 2.5, 5.0, 15.0)


@dataclass(frozen=True)
class Tally:
    """All that was seen of both versions, and the evidence that the canary is the worse one.

    `ignore_below` is an error rate, as a share of the requests: a canary below it is never worse, whatever the stable
    version does. Both have to be shown then, which costs no budget (Berger 1982: intersection-union test).
    """

    ignore_below: float = 0.0
    canary: Counts = field(default_factory=Counts)
    stable: Counts = field(default_factory=Counts)
    _worse: tuple[float, ...] = (0.0,) * len(RATIOS)  # logarithms, one for each ratio

    def after(self, canary: Counts, stable: Counts) -> Tally:
        """With one more look: requests and errors since the one before. A look at one version alone says nothing."""
        seen = (_sum(self.canary, canary), _sum(self.stable, stable))
        if not canary.requests or not stable.requests:
            return Tally(self.ignore_below, *seen, self._worse)
        share = canary.requests / (canary.requests + stable.requests)
        failed = canary.errors + stable.errors
        worse = tuple(
            known + canary.errors * math.log(ratio) - failed * math.log1p(share * (ratio - 1))
            for known, ratio in zip(self._worse, RATIOS, strict=True)
        )
        return Tally(self.ignore_below, *seen, worse)

    @property
    def evidence(self) -> float:
        """Logarithm of the e-value: log(1/budget) or more is an alarm."""
        worse = _log_mean(self._worse)
        return min(worse, self._above_limit()) if self.ignore_below else worse

    def alarm(self, budget: float) -> bool:
        """Whether the canary is worse; the chance of a false alarm, ever, is at most `budget`."""
        return self.evidence >= math.log(1 / budget)

    def sentence(self, budget: float) -> str:
        """What was found, for a person."""
        rates = f"canary {_rate(self.canary)}, stable {_rate(self.stable)}"
        if self.alarm(budget):
            return f"{rates}: worse, false-alarm chance under {100 * budget:g} %"
        return f"{rates}: no difference shown"

    def _above_limit(self) -> float:
        """The same for the canary's own rate against `ignore_below`: likelihood ratios of a known rate."""
        good, bad = self.canary.requests - self.canary.errors, self.canary.errors
        limit = self.ignore_below
        rates = [min(limit * factor, (1 + limit) / 2) for factor in FACTORS]
        return _log_mean(
            tuple(bad * math.log(rate / limit) + good * math.log((1 - rate) / (1 - limit)) for rate in rates)
        )


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(requests=one.requests + other.requests, errors=one.errors + other.errors)


def _log_mean(logs: tuple[float, ...]) -> float:
    largest = max(logs)
    return largest + math.log(sum(math.exp(log - largest) for log in logs) / len(logs))


def _rate(counts: Counts) -> str:
    if not counts.requests:
        return "no requests"
    return f"{100 * counts.errors / counts.requests:.2g} % errors of {counts.requests:,} requests"
