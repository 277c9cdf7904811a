"""Counters that continue after a restart of the proxy."""

from __future__ import annotations

from datetime import UTC, datetime

from headway.domain.measurements import Bucket, Measurements, RequestCounts
from headway.rollout.request_counter import RequestCounter
from headway.testing import FakeTarget

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Told(FakeTarget):
    """A target with the given measurements."""

    def __init__(self, *readings: Measurements) -> None:
        super().__init__()
        self.readings = list(readings)

    def measure(self, app: str) -> Measurements:
        return self.readings.pop(0)


def raw(run: str | None, *, edge: RequestCounts | None = None, **counts: RequestCounts) -> Measurements:
    return Measurements(at=AT, counts=counts, edge=edge, run=run)


def seen(*readings: Measurements) -> list[Measurements]:
    meter = RequestCounter(Told(*readings), "shop")
    return [meter.read() for _ in readings]


def test_counter_continues_after_each_restart() -> None:
    found = seen(
        raw("a", edge=RequestCounts(requests=50, errors=5), new=RequestCounts(requests=50, errors=5)),
        raw("b", edge=RequestCounts(requests=3), new=RequestCounts(requests=3)),
        raw("b", edge=RequestCounts(requests=7, errors=2), new=RequestCounts(requests=7, errors=2)),
        raw("c", edge=RequestCounts(requests=1), new=RequestCounts(requests=1)),
    )
    assert [reading.counts["new"].requests for reading in found] == [50, 53, 57, 58]
    assert [reading.counts["new"].errors for reading in found] == [5, 5, 7, 7]
    assert [reading.edge.requests for reading in found if reading.edge] == [50, 53, 57, 58]


def test_restart_is_detected_even_with_a_higher_count() -> None:
    found = seen(raw("a", new=RequestCounts(requests=5)), raw("b", new=RequestCounts(requests=90)))
    assert found[-1].counts["new"].requests == 95


def test_latency_counts_continue_after_a_restart() -> None:
    slow, quick = Bucket(1.0, 2.0, 4), Bucket(0.01, 0.02, 6)
    found = seen(
        raw("a", new=RequestCounts(requests=4, latency=(slow,))),
        raw("b", new=RequestCounts(requests=6, latency=(quick,))),
    )
    assert found[-1].counts["new"].latency == (quick, slow)


def test_revision_created_after_the_restart_is_unchanged() -> None:
    found = seen(raw("a", old=RequestCounts(requests=4)), raw("b", old=RequestCounts(), new=RequestCounts(requests=2)))
    assert found[-1].counts == {"old": RequestCounts(requests=4), "new": RequestCounts(requests=2)}


def test_unanswered_requests_never_decrease() -> None:
    found = seen(*(raw("a", new=RequestCounts(unanswered=number)) for number in [3, 2, 5, 0]))
    assert [reading.counts["new"].unanswered for reading in found] == [3, 3, 5, 5]


def test_target_without_counts_is_unchanged() -> None:
    found = seen(raw(None, new=RequestCounts(requests=9)), raw(None, new=RequestCounts(requests=2)))
    assert [reading.counts["new"].requests for reading in found] == [9, 2]
