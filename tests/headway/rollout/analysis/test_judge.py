"""The judge, replayed on recorded readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.measurements import Bucket, Measurements, RequestCounts, Verdict
from headway.domain.plan import Analyze, Comparison, Condition, MetricLimit
from headway.rollout.analysis import Judgement, Tally, evaluate, replay
from headway.rollout.analysis.metric_limits import metric

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = Condition(metric="success_rate", op=">=", limit=90)


def analyze(*conditions: Condition, compared: bool = True) -> Analyze:
    against = Comparison(stable="old", budget=0.01) if compared else None
    return Analyze(revision="new", window=10, conditions=conditions, min_requests=10, against=against)


def counted(requests: int, share: float) -> RequestCounts:
    latency = (Bucket(0.01, 0.02, requests),) if requests else ()
    return RequestCounts(requests=requests, errors=round(share * requests), latency=latency)


def readings(share: float, looks: int, *, stable: float = 0.01, before: int = 0) -> list[Measurements]:
    """Counters that have been running for `before` seconds, read every second: 100 requests to each version."""
    return [
        Measurements(
            at=BEGUN + timedelta(seconds=second),
            counts={
                "new": counted(100 * second, share),
                "old": counted(100 * second, stable),
            },
        )
        for second in range(before, before + looks + 1)
    ]


def test_good_canary_passes_with_its_evidence() -> None:
    (found,) = replay([(analyze(GOOD), readings(0.01, 10))])
    assert found.judgement.verdict is Verdict.PASS
    assert (found.looks, found.seconds) == (10, 10.0)
    assert found.judgement.evidence == (
        "success_rate 99.00 % (1000 requests, 10 errors); canary 1 % errors of 1,000 requests, "
        "stable 1 % errors of 1,000 requests: no difference shown"
    )


def test_first_fail_is_final() -> None:
    found = replay([(analyze(GOOD), readings(0.08, 100)), (analyze(GOOD), readings(0.08, 10, before=100))])
    assert len(found) == 1
    assert found[0].judgement.verdict is Verdict.FAIL
    assert found[0].looks < 10


def test_evidence_carries_over_to_the_next_step() -> None:
    first, second = readings(0.03, 3), readings(0.03, 3, before=3)
    together = replay([(analyze(), first), (analyze(), second)])
    assert "canary 3 % errors of 600 requests" in together[-1].judgement.evidence


def test_other_limits_give_another_verdict() -> None:
    measured = readings(0.08, 100)
    (limits,) = replay([(analyze(GOOD, compared=False), measured)])
    assert limits.judgement.verdict is Verdict.PASS
    strict = Condition(metric="success_rate", op=">=", limit=99.5)
    (found,) = replay([(analyze(strict, compared=False), measured)])
    assert found.judgement.verdict is Verdict.FAIL


def test_no_readings_are_inconclusive() -> None:
    (found,) = replay([(analyze(GOOD), [])])
    assert found.judgement.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("stable", "words"),
    [
        (RequestCounts(), "stable had 0 requests, fewer than the 10 it takes to compare"),
        (counted(9, 0.0), "stable had 9 requests"),
        (counted(50, 0.0), "too little is known of stable's latency to compare"),
    ],
)
def test_without_a_stable_version_a_comparison_is_inconclusive(stable: RequestCounts, words: str) -> None:
    measured = [
        Measurements(at=BEGUN, counts={}),
        Measurements(at=BEGUN + timedelta(seconds=1), counts={"new": counted(500, 0.0), "old": stable}),
    ]
    (found,) = replay([(analyze(), measured)])
    assert found.judgement.verdict is Verdict.INCONCLUSIVE
    assert words in found.judgement.evidence


# --- metrics ---------------------------------------------------------------------------------------------------------

ORDERS = MetricLimit(name="orders", source="prometheus/main", query="sum(orders)", op=">=", limit=5, lasting=3)


def told(*values: float | str | None) -> list[Measurements]:
    """Values of the metric source, one for each second."""
    return [
        Measurements(at=BEGUN + timedelta(seconds=second), counts={}, metrics={"orders": value})
        for second, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        ((9.0, 9.0), Verdict.PASS, "orders 9"),
        ((9.0, 5.0), Verdict.PASS, "orders 5"),
        ((1.0, 9.0), Verdict.PASS, "orders 9"),
        ((9.0, 1.0), Verdict.INCONCLUSIVE, "orders >= 5 does not hold: 1, for 0 s of 3"),
        ((9.0, 1.0, 1.0, 1.0, 1.0), Verdict.FAIL, "orders >= 5 does not hold: 1, for 3 s"),
        ((1.0, 1.0, 9.0, 1.0, 1.0), Verdict.INCONCLUSIVE, "orders >= 5 does not hold: 1, for 1 s of 3"),
        ((1.0, 1.0, None, 1.0, 1.0), Verdict.INCONCLUSIVE, "orders >= 5 does not hold: 1, for 1 s of 3"),
        ((9.0, None), Verdict.INCONCLUSIVE, "orders: no data"),
        ((9.0, float("nan")), Verdict.INCONCLUSIVE, "orders: no data"),
        ((9.0, "Prometheus is away"), Verdict.ERROR, "orders: Prometheus is away"),
        ((9.0, float("inf")), Verdict.PASS, "orders inf"),
    ],
)
def test_metric_fails_after_its_limit_is_exceeded_for_long_enough(
    values: tuple[float | str | None, ...], verdict: Verdict, words: str
) -> None:
    assert metric(ORDERS, told(*values)) == Judgement(verdict=verdict, evidence=words)


def judged(step: Analyze, taken: list[Measurements]) -> Judgement:
    return evaluate(Tally(), step, taken)[1]


def test_worst_verdict_wins_and_a_fail_names_what_failed() -> None:
    step = analyze(GOOD, compared=False).model_copy(update={"metrics": (ORDERS,)})
    good, bad = readings(0.0, 5), readings(0.5, 5)
    with_metric = [one.model_copy(update={"metrics": {"orders": "it is away"}}) for one in good]
    assert judged(step, with_metric).verdict is Verdict.ERROR
    assert judged(step, with_metric).evidence == ("success_rate 100.00 % (500 requests, 0 errors); orders: it is away")
    with_metric = [one.model_copy(update={"metrics": {"orders": "it is away"}}) for one in bad]
    assert judged(step, with_metric) == Judgement(
        verdict=Verdict.FAIL, evidence="success_rate >= 90 % does not hold: 50.00 % (500 requests, 250 errors)"
    )


def test_analysis_of_metrics_only_needs_no_requests() -> None:
    step = analyze(compared=False).model_copy(update={"metrics": (ORDERS,)})
    assert judged(step, told(9.0, 9.0)).verdict is Verdict.PASS


def test_synthetic_requests_are_named() -> None:
    taken = readings(0.0, 2)
    taken[-1] = taken[-1].model_copy(update={"synthetic": {"new": RequestCounts(requests=120)}})
    assert judged(analyze(GOOD, compared=False), taken).evidence.endswith("120 of its 200 requests were synthetic")


def test_latency_is_replayed_as_well() -> None:
    def taken(second: int, milliseconds: int) -> RequestCounts:
        bucket = Bucket(milliseconds / 1000, (milliseconds + 1) / 1000, 100 * second)
        return RequestCounts(requests=100 * second, latency=(bucket,))

    measured = [
        Measurements(at=BEGUN + timedelta(seconds=second), counts={"new": taken(second, 400), "old": taken(second, 40)})
        for second in range(60)
    ]
    (found,) = replay([(analyze(), measured)])
    assert found.judgement.verdict is Verdict.FAIL
    assert "slower than stable's p" in found.judgement.evidence
