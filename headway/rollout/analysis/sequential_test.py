"""Test sequentially whether the canary is worse than the stable version, within a false-alarm budget.

The data are evaluated at interim looks, as often as every second. If both versions are equally good, the failures of
one look are distributed over the versions as if drawn from all its requests. For a rate ratio r > 1, the canary's share
w of the requests, and x of k failures on the canary, r**x / (w*r + 1 - w)**k then has an expectation of at most 1:
given k, x is hypergeometric, and convex functions of it have expectations no larger than for a binomial (Hoeffding
1963, theorem 4). If the canary is better, the expectation is smaller still. The unknown error rate cancels out. The
product over all looks is a test supermartingale, and so is its mean over several r. The probability that it ever
reaches 1/budget is at most the budget (Ville 1939; Ramdas et al. 2023, "Game-theoretic statistics and safe
anytime-valid inference"). Traffic weights may change between looks.

Assumption: requests fail independently. Requests of one user or one page, or during an outage of one instance, do not,
and count as more evidence than they are.

Latency uses the same test with another kind of failure. A stable request is slow when it exceeds the stable version's
quantile q, as known before the look; a canary request when it exceeds g(q), which is slightly larger. A canary that is
slower by less than g has no larger share of slow requests than the stable version, whatever the distribution. Errors
and quantiles share one budget, because a weighted mean of test supermartingales is a test supermartingale.

The libraries savvi and confseq test one rate, or two samples of equal size, but not two samples of varying size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from headway.domain.measurements import Bucket, RequestCounts

__all__ = ["Share", "Tally", "Worse"]

RATIOS = (1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0)
# `ignore_below` is tested by itself: how much worse than that limit the canary's own error rate may be.
FACTORS = (1.2, 1.6, 2.5, 5.0, 15.0)
QUANTILES = (0.9, 0.99)  # the median has less power: half of the stable requests exceed it too
ENOUGH = 10  # requests beyond a quantile before it is used
FLOOR = 0.010  # seconds; smaller differences do not matter, and Envoy counts in milliseconds
ERRORS, LATENCY = math.log(0.75), math.log(0.25 / len(QUANTILES))  # parts of the budget, as logarithms


@dataclass(frozen=True)
class Share:
    """Number of bad requests, and of all requests."""

    bad: int = 0
    all: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.bad + other.bad, self.all + other.all)

    @property
    def percent(self) -> float:
        return 100.0 * self.bad / self.all


@dataclass(frozen=True)
class Worse:
    """Evidence that a larger share of the canary's requests is bad, with the counts of both versions."""

    canary: Share = Share()
    stable: Share = Share()
    _logs: tuple[float, ...] = (0.0,) * len(RATIOS)  # one for each ratio

    def after(self, canary: Share, stable: Share) -> Worse:
        """Add one look. A look with requests of only one version is no evidence."""
        logs = self._logs
        if canary.all and stable.all:
            share = canary.all / (canary.all + stable.all)
            bad = canary.bad + stable.bad
            logs = tuple(
                known + canary.bad * math.log(ratio) - bad * math.log1p(share * (ratio - 1))
                for known, ratio in zip(self._logs, RATIOS, strict=True)
            )
        return Worse(self.canary + canary, self.stable + stable, logs)

    @property
    def evidence(self) -> float:
        """Logarithm of the e-value."""
        return _log_mean(self._logs)


@dataclass(frozen=True)
class Tally:
    """Counts of both versions, and the evidence that the canary is worse.

    `ignore_below` is an error rate (0 to 1): a canary below it never counts as worse. An alarm then needs evidence for
    both conditions, which costs no budget (Berger 1982: intersection-union test). `ignore_slower` is a fraction of the
    stable version's latency: a canary slower by at most that does not count as worse. `history` is the stable version's
    latency so far, whose quantiles define slow requests in the next look.
    """

    ignore_below: float = 0.0
    ignore_slower: float = 0.25
    history: tuple[Bucket, ...] = ()
    errors: Worse = Worse()
    slow: tuple[Worse, ...] = (Worse(),) * len(QUANTILES)

    def after(self, canary: RequestCounts, stable: RequestCounts) -> Tally:
        """Add one look: the counts since the previous one."""
        limits = [_slow_beyond(self.history, quantile) for quantile in QUANTILES]
        return replace(
            self,
            history=RequestCounts(latency=self.history).plus(stable).latency if stable.latency else self.history,
            errors=self.errors.after(_failed(canary), _failed(stable)),
            slow=tuple(
                known if limit is None else known.after(_slow(canary, self._slower(limit)), _slow(stable, limit))
                for known, limit in zip(self.slow, limits, strict=True)
            ),
        )

    def unknown(self, requests: int) -> str:
        """Describe the data missing to call the versions equal, at least `requests` of each; empty if none."""
        stable, limit = self.errors.stable.all, _slow_beyond(self.history, QUANTILES[0])
        if stable < requests:
            return f"stable had {stable:,} requests, fewer than the {requests} it takes to compare"
        return "" if limit is not None else "too little is known of stable's latency to compare"

    @property
    def evidence(self) -> float:
        """Logarithm of the e-value: log(1/budget) or more is an alarm."""
        return _log_sum([ERRORS + self._more_errors(), *(LATENCY + slow.evidence for slow in self.slow)])

    def alarm(self, budget: float) -> bool:
        """Whether the canary is worse. Over all looks, the probability of a false alarm is at most `budget`."""
        return self.evidence >= math.log(1 / budget)

    def sentence(self, budget: float) -> str:
        """Describe the result in one sentence."""
        found = f"canary {_rate(self.errors.canary)}, stable {_rate(self.errors.stable)}"
        if not self.alarm(budget):
            return f"{found}: no difference shown"
        worst = max(range(len(QUANTILES)), key=lambda place: self.slow[place].evidence)
        if self.slow[worst].evidence + LATENCY > self._more_errors() + ERRORS:
            slow = self.slow[worst]
            found = (
                f"{slow.canary.percent:.2g} % of the canary's {slow.canary.all:,} requests are slower than stable's "
                f"p{100 * QUANTILES[worst]:g} by more than {100 * self.ignore_slower:g} % and {1000 * FLOOR:g} ms, "
                f"{slow.stable.percent:.2g} % of stable's {slow.stable.all:,} are slower than it"
            )
        return f"{found}: worse, false-alarm chance under {100 * budget:g} %"

    def _more_errors(self) -> float:
        worse = self.errors.evidence
        return min(worse, self._above_limit()) if self.ignore_below else worse

    def _above_limit(self) -> float:
        """Evidence that the canary's own rate exceeds `ignore_below`: likelihood ratios against a known rate."""
        bad = self.errors.canary.bad
        good = self.errors.canary.all - bad
        limit = self.ignore_below
        rates = [min(limit * factor, (1 + limit) / 2) for factor in FACTORS]
        return _log_mean([bad * math.log(rate / limit) + good * math.log((1 - rate) / (1 - limit)) for rate in rates])

    def _slower(self, limit: float) -> float:
        return limit * (1 + self.ignore_slower) + FLOOR


def _slow_beyond(history: Iterable[Bucket], quantile: float) -> float | None:
    """Upper bound of the bucket with the quantile; None while there are too few requests."""
    buckets = tuple(history)
    requests = sum(bucket.requests for bucket in buckets)
    if requests * (1 - quantile) < ENOUGH:
        return None
    below = 0
    for bucket in buckets:
        below += bucket.requests
        if below >= quantile * requests:
            return bucket.upper
    return None


def _failed(counts: RequestCounts) -> Share:
    """Count cancelled requests as failed: a hanging version has no other failures."""
    return Share(counts.errors + counts.unanswered, counts.requests + counts.unanswered)


def _slow(counts: RequestCounts, limit: float) -> Share:
    return Share(counts.slower(limit), sum(bucket.requests for bucket in counts.latency))


def _log_mean(logs: Iterable[float]) -> float:
    terms = list(logs)
    return _log_sum(terms) - math.log(len(terms))


def _log_sum(logs: Iterable[float]) -> float:
    terms = list(logs)
    largest = max(terms)
    return largest + math.log(sum(math.exp(log - largest) for log in terms))


def _rate(share: Share) -> str:
    return f"{share.percent:.2g} % errors of {share.all:,} requests" if share.all else "no requests"
