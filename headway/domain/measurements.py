"""Request counts, latency histograms and metric samples."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.revision import Revision
from headway.domain.traffic import Instance

__all__ = ["Bucket", "Measurements", "RequestCounts", "Sample", "Verdict"]


class Bucket(NamedTuple):
    """One bucket of a latency histogram: number of requests that took `lower` to `upper` seconds."""

    lower: float
    upper: float
    requests: int


class RequestCounts(Frozen):
    """Requests of one revision, as its users saw them. Monotonic; latency in seconds."""

    requests: int = Field(default=0, description="requests with a response; a retried one counts once")
    errors: int = Field(default=0, description="of those: 5xx, interrupted, or successful only after a retry")
    unanswered: int = Field(default=0, description="in addition: requests that the client cancelled")
    latency: tuple[Bucket, ...] = Field(default=(), description="by rising bounds; empty buckets left out")

    def quantile(self, share: float) -> float | None:
        """The latency that this share of the requests stays under, in seconds, interpolated within its bucket.

        None without any measurement.
        """
        wanted = share * sum(bucket.requests for bucket in self.latency)
        for bucket in self.latency:
            if wanted <= bucket.requests:
                return bucket.lower + (bucket.upper - bucket.lower) * wanted / bucket.requests
            wanted -= bucket.requests
        return self.latency[-1].upper if self.latency else None

    def slower(self, limit: float) -> int:
        """Requests that took longer than `limit` seconds, to the bucket: one that contains the limit is not slower."""
        return sum(bucket.requests for bucket in self.latency if bucket.lower >= limit)

    def plus(self, other: RequestCounts) -> RequestCounts:
        """The sum of both."""
        buckets = {bucket.lower: bucket for bucket in self.latency}
        for bucket in other.latency:
            known = buckets.get(bucket.lower)
            buckets[bucket.lower] = bucket._replace(requests=bucket.requests + known.requests) if known else bucket
        return RequestCounts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            unanswered=self.unanswered + other.unanswered,
            latency=tuple(buckets[lower] for lower in sorted(buckets)),
        )

    def since(self, earlier: RequestCounts) -> RequestCounts:
        """Difference to an earlier count. A counter that is lower than before was reset to 0."""
        if self.requests < earlier.requests:
            return self
        before = {bucket.lower: bucket.requests for bucket in earlier.latency}
        added = (bucket._replace(requests=bucket.requests - before.get(bucket.lower, 0)) for bucket in self.latency)
        return RequestCounts(
            requests=self.requests - earlier.requests,
            errors=max(0, self.errors - earlier.errors),
            unanswered=max(0, self.unanswered - earlier.unanswered),
            latency=tuple(bucket for bucket in added if bucket.requests > 0),
        )


class Sample(NamedTuple):
    """Value of one series of a metric source."""

    labels: dict[str, str]
    value: float


class Measurements(Frozen):
    """A reading: all counters at one time. Two of them make a window."""

    at: datetime
    counts: dict[str, RequestCounts]
    edge: RequestCounts | None = Field(
        default=None, description="the same of the proxy: what users saw, after all retries"
    )
    synthetic: dict[str, RequestCounts] = Field(
        default_factory=dict, description="Headway's own probes: part of `counts`, as they were answered"
    )
    run: str | None = Field(default=None, description="another one each time the proxy's counters begin at 0 again")
    instances: tuple[Instance, ...] = Field(default=(), description="those of the revision that is watched")
    metrics: dict[str, float | str | None] = Field(
        default_factory=dict, description="answers of metric sources by name; None: no data, words: why there are none"
    )

    def since(self, earlier: Measurements, revision: Revision | str) -> RequestCounts:
        """Requests of a revision between two readings."""
        return self.counts.get(str(revision), RequestCounts()).since(earlier.counts.get(str(revision), RequestCounts()))


class Verdict(StrEnum):
    """Result of an analysis. Fail aborts; Inconclusive and Error need a person; no data is never a pass."""

    PASS = "pass"  # noqa: S105 # a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
