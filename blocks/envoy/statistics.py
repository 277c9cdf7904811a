"""Parse Envoy's statistics. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.envoy.xds import PUBLIC
from headway.domain.measurements import Bucket, RequestCounts

__all__ = ["COUNTERS", "counts", "edge_counts", "histograms"]

COUNTERS = (  # pattern of the statistics that `counts` and `edge_counts` read
    r"^cluster\..*\.upstream_(rq_(completed|5xx|time|total|active|retry|retry_success)"
    r"|rq_pending_(active|overflow|failure_eject)|cx_(protocol_error|none_healthy))$"
    rf"|^http\.{PUBLIC}\.downstream_rq_(completed|5xx|tx_reset|rx_reset|time)$"
)


def counts(stats: Mapping[str, int], latency: Mapping[str, tuple[Bucket, ...]], revision: str) -> RequestCounts:
    """A cluster's counters by request: a request with four attempts counts once, so that failures are independent.

    Requests cancelled by the client are started minus finished ones: Envoy has no counter for them.
    """

    def value(name: str) -> int:
        return stats.get(f"cluster.{revision}.upstream_{name}", 0)

    answered = value("rq_completed")
    failed = value("rq_5xx") + value("rq_retry_success") + value("cx_protocol_error")
    unreachable = value("rq_pending_failure_eject") + value("rq_pending_overflow") + value("cx_none_healthy")
    begun = value("rq_total") + unreachable - value("rq_retry")
    return RequestCounts(
        requests=answered,
        errors=min(failed, answered),
        unanswered=max(0, begun - answered - value("rq_active") - value("rq_pending_active")),
        latency=latency.get(f"cluster.{revision}.upstream_rq_time", ()),
    )


def edge_counts(stats: Mapping[str, int], latency: Mapping[str, tuple[Bucket, ...]]) -> RequestCounts:
    """The public port's counters: what users saw. An interrupted response is reset on both sides."""

    def value(name: str) -> int:
        return stats.get(f"http.{PUBLIC}.downstream_rq_{name}", 0)

    return RequestCounts(
        requests=value("completed"),
        errors=value("5xx") + value("tx_reset"),
        unanswered=max(0, value("rx_reset") - value("tx_reset")),
        latency=latency.get(f"http.{PUBLIC}.downstream_rq_time", ()),
    )


def histograms(stats: Mapping[str, Any]) -> dict[str, tuple[Bucket, ...]]:
    """Every histogram in `/stats?format=json&histogram_buckets=detailed`; Envoy counts in milliseconds."""
    found = {}
    for one in stats.get("stats", []):
        for histogram in one.get("histograms", {}).get("details", []):
            found[histogram["name"]] = tuple(_bucket(bucket) for bucket in histogram["totals"])
    return found


def _bucket(bucket: Mapping[str, Any]) -> Bucket:
    """Envoy rounds down to milliseconds: its 0 means up to one. Bounds are rounded, so that those of two
    neighbours are equal.
    """
    lower, width = bucket["lower_bound"], bucket["width"] or 1
    return Bucket(round(lower / 1000, 6), round((lower + width) / 1000, 6), bucket["count"])
