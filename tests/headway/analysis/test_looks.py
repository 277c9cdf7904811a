"""What was measured, judged again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headway.analysis import replay
from headway.model import Analyze, Comparison, Condition, Counts, Measurements, Verdict

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = Condition(metric="success_rate", op=">=", limit=90)


def analyze(*conditions: Condition, compared: bool = True) -> Analyze:
    against = Comparison(stable="old", budget=0.01) if compared else None
    return Analyze(revision="new", window=10, conditions=conditions, min_requests=10, against=against)


def readings(share: float, looks: int, *, stable: float = 0.01, before: int = 0) -> list[Measurements]:
    """Counters that have been running for `before` seconds, read every second: 100 requests to each version."""
    return [
        Measurements(
            at=BEGUN + timedelta(seconds=second),
            counts={
                "new": Counts(requests=100 * second, errors=round(share * 100 * second)),
                "old": Counts(requests=100 * second, errors=round(stable * 100 * second)),
            },
        )
        for second in range(before, before + looks + 1)
    ]


def test_a_good_canary_passes_with_what_it_rests_on() -> None:
    (found,) = replay([(analyze(GOOD), readings(0.01, 10))])
    assert found.judgement.verdict is Verdict.PASS
    assert (found.looks, found.seconds) == (10, 10.0)
    assert found.judgement.evidence == (
        "success_rate 99.00 % (1000 requests, 10 errors); canary 1 % errors of 1,000 requests, "
        "stable 1 % errors of 1,000 requests: no difference shown"
    )


def test_the_first_fail_ends_it() -> None:
    found = replay([(analyze(GOOD), readings(0.08, 100)), (analyze(GOOD), readings(0.08, 10, before=100))])
    assert len(found) == 1
    assert found[0].judgement.verdict is Verdict.FAIL
    assert found[0].looks < 10


def test_what_one_step_has_seen_counts_in_the_next() -> None:
    first, second = readings(0.03, 3), readings(0.03, 3, before=3)
    together = replay([(analyze(), first), (analyze(), second)])
    assert "canary 3 % errors of 600 requests" in together[-1].judgement.evidence


def test_with_other_limits_it_is_another_verdict() -> None:
    measured = readings(0.08, 100)
    (limits,) = replay([(analyze(GOOD, compared=False), measured)])
    assert limits.judgement.verdict is Verdict.PASS
    strict = Condition(metric="success_rate", op=">=", limit=99.5)
    (found,) = replay([(analyze(strict, compared=False), measured)])
    assert found.judgement.verdict is Verdict.FAIL


def test_no_readings_are_no_pass() -> None:
    (found,) = replay([(analyze(GOOD), [])])
    assert found.judgement.verdict is Verdict.INCONCLUSIVE
