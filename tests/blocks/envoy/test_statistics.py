"""Parsing of Envoy's statistics and configuration dump."""

from __future__ import annotations

import pytest

from blocks.envoy import statistics
from headway.domain.measurements import Bucket, RequestCounts


def told(name: str, *totals: tuple[float, float, int]) -> dict[str, object]:
    """A histogram as `/stats?histogram_buckets=detailed` has it."""
    buckets = [{"lower_bound": lower, "width": width, "count": count} for lower, width, count in totals]
    return {"stats": [{"histograms": {"details": [{"name": name, "totals": buckets}]}}, {"name": "x", "value": 1}]}


def test_milliseconds_become_seconds_in_adjacent_buckets() -> None:
    found = statistics.histograms(told("h", (0, 0, 7), (1, 0.1, 5), (1.1, 0.1, 1), (1.2, 0.1, 1), (300, 10, 2)))["h"]
    assert found == (
        Bucket(0.0, 0.001, 7),
        Bucket(0.001, 0.0011, 5),
        Bucket(0.0011, 0.0012, 1),
        Bucket(0.0012, 0.0013, 1),
        Bucket(0.3, 0.31, 2),
    )


def test_duration_below_a_millisecond_is_in_the_first_bucket() -> None:
    (buckets,) = statistics.histograms(told("h", (0, 0, 90), (2, 0.1, 10))).values()
    assert RequestCounts(requests=100, latency=buckets).slower(buckets[0].upper) == 10


def cluster(**values: int) -> dict[str, int]:
    return {f"cluster.r1.upstream_{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("stats", "counted"),
    [  # as a real Envoy 1.40 counts them
        (cluster(rq_completed=20, rq_total=20), RequestCounts(requests=20)),
        (cluster(rq_completed=20, rq_5xx=20, rq_total=20), RequestCounts(requests=20, errors=20)),
        # 503 four times each, and reset four times each: one failure a request
        (cluster(rq_completed=5, rq_5xx=5, rq_total=20, rq_retry=15), RequestCounts(requests=5, errors=5)),
        # saved by a retry
        (cluster(rq_completed=5, rq_total=8, rq_retry=3, rq_retry_success=3), RequestCounts(requests=5, errors=3)),
        # broken off in the middle of the answer
        (cluster(rq_completed=5, rq_total=5, cx_protocol_error=5), RequestCounts(requests=5, errors=5)),
        # given up on while it hung; one hangs still, one waits for a connection
        (
            cluster(rq_completed=7, rq_total=12, rq_active=1, rq_pending_active=1),
            RequestCounts(requests=7, unanswered=3),
        ),
        # refused: no try was ever begun
        (
            cluster(rq_completed=5, rq_5xx=5, rq_pending_failure_eject=20, rq_retry=15),
            RequestCounts(requests=5, errors=5),
        ),
        # no healthy endpoint: Envoy's own response
        (cluster(rq_completed=9, rq_5xx=4, rq_total=5, cx_none_healthy=4), RequestCounts(requests=9, errors=4)),
    ],
)
def test_every_request_counts_once(stats: dict[str, int], counted: RequestCounts) -> None:
    assert statistics.counts(stats | {"cluster.r2.upstream_rq_completed": 7}, {}, "r1") == counted


def test_broken_response_counts_as_an_error_of_users() -> None:
    stats = {
        "http.edge.downstream_rq_completed": 10,
        "http.edge.downstream_rq_5xx": 2,
        "http.edge.downstream_rq_tx_reset": 1,
        "http.edge.downstream_rq_rx_reset": 4,
    }
    assert statistics.edge_counts(stats, {}) == RequestCounts(requests=10, errors=3, unanswered=3)
