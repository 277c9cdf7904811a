"""Sums of a revision's counters while pods restart and disappear, and the PromQL that reads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blocks.targets.kubernetes import promql
from blocks.targets.kubernetes.promql import Counters
from headway.domain.errors import MetricsUnavailable
from headway.domain.measurements import Bucket, RequestCounts, Sample

NEW = "2222222-bbbbbb"
ASKED: dict[promql.Question, str] = {"requests": "requests", "errors": "errors", "latency": "latency"}


def counters(exporter: promql.Exporter = "app", queries: dict[promql.Question, str] = ASKED) -> Counters:
    return Counters("shop", "shops", NEW, exporter, queries)


def told(**answers: dict[str, float]) -> Callable[[str], list[Sample]]:
    """Counts of each pod, or of each `le`, by query."""
    label = {"requests": "pod", "errors": "pod", "latency": "le"}
    return lambda query: [Sample({label[query]: key}, value) for key, value in answers.get(query, {}).items()]


def test_restarted_pod_continues_its_count() -> None:
    counted = counters()
    assert counted.read(told(requests={"a": 100, "b": 50}, errors={"a": 1})).requests == 150
    assert counted.read(told(requests={"a": 110, "b": 5}, errors={"a": 1, "b": 2})) == RequestCounts(
        requests=165, errors=3
    )


def test_deleted_pod_keeps_its_count() -> None:
    counted = counters()
    counted.read(told(requests={"a": 100, "b": 50}))
    assert counted.read(told(requests={"b": 60})).requests == 160
    assert counted.read(told(requests={"a": 101, "b": 60})).requests == 161


def test_no_data_is_a_count_of_zero() -> None:
    counted = counters()
    assert counted.read(told()) == RequestCounts()
    before = counted.read(told(requests={"a": 7}))
    assert counted.read(told()).since(before) == RequestCounts()


def test_buckets_are_differences_of_two_bounds() -> None:
    slow = {"0.1": 80.0, "0.5": 95.0, "1": 95.0, "+Inf": 100.0}
    counts = counters().read(told(requests={"a": 100}, latency=slow))
    assert counts.latency == (Bucket(0.0, 0.1, 80), Bucket(0.1, 0.5, 15), Bucket(1.0, 2.0, 5))
    assert counts.slower(0.5) == 5


def test_istio_buckets_are_in_milliseconds() -> None:
    counts = counters("istio").read(told(latency={"250": 3, "+Inf": 3}))
    assert counts.latency == (Bucket(0.0, 0.25, 3),)


@pytest.mark.parametrize(("without", "queries"), [(0.0, {}), (3.0, {"errors": "errors"})])
def test_requests_with_a_status_are_counted(without: float, queries: dict[promql.Question, str]) -> None:
    counts = counters(queries=queries).read(lambda query: [Sample({}, without if query.startswith("count(") else 7.0)])
    assert counts.requests == 7


def test_counters_without_a_status_are_refused_because_errors_would_be_successes() -> None:
    with pytest.raises(MetricsUnavailable, match=f"shop-{NEW} has none of the labels code, status, status_code"):
        counters(queries={}).read(lambda query: [Sample({}, 3.0 if query.startswith("count(") else 7.0)])
    assert 'code="",status="",status_code=""' in counters(queries={})._without_status


def test_error_without_its_request_is_not_counted() -> None:
    assert counters().read(told(requests={"a": 3}, errors={"a": 4})) == RequestCounts(requests=3, errors=3)


def test_query_selects_the_revision() -> None:
    query = 'label_replace(x{r="$revision", p=~"$pods", n="$namespace"}, "a", "$1", "s", "(.*)-${port}")'
    found = counters(queries={"requests": query}).queries
    assert found["requests"] == (
        f'label_replace(x{{r="{NEW}", p=~"shop-{NEW}-.+", n="shops"}}, "a", "$1", "s", "(.*)-80")'
    )
    assert "http_request_duration_seconds_bucket" in found["latency"]


@pytest.mark.parametrize(("query", "strange"), [("x{a='$pod'}", ["pod"]), ("x{a='$pods'}", []), ("x{a=~'b$'}", [])])
def test_unknown_placeholder_is_an_error(query: str, strange: list[str]) -> None:
    assert promql.unknown(query) == strange
