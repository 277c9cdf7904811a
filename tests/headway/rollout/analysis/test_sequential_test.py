"""Statistical guarantees of the sequential test, computed exactly where possible."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.domain.measurements import Bucket, RequestCounts
from headway.rollout.analysis.sequential_test import RATIOS, Share, Tally, Worse


def counts(requests: int, errors: int) -> RequestCounts:
    return RequestCounts(requests=requests, errors=errors)


def binomial(n: int, x: int, p: float) -> float:
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)


@pytest.mark.parametrize(("canary", "stable"), [(1, 1), (1, 19), (3, 8), (8, 3)])
@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.5, 0.5), (0.97, 0.97), (0.02, 0.1), (0.0, 0.3), (1.0, 1.0)])
def test_a_canary_that_is_no_worse_has_an_expected_e_value_of_at_most_1(
    canary: int, stable: int, rates: tuple[float, float]
) -> None:
    expected = sum(
        binomial(canary, x, rates[0])
        * binomial(stable, y, rates[1])
        * math.exp(Tally().after(counts(canary, x), counts(stable, y)).evidence)
        for x, y in product(range(canary + 1), range(stable + 1))
    )
    assert expected <= 1 + 1e-12


def test_worse_canary_has_a_larger_expected_e_value() -> None:
    expected = sum(
        binomial(3, x, 0.5) * binomial(8, y, 0.1) * math.exp(Tally().after(counts(3, x), counts(8, y)).evidence)
        for x, y in product(range(4), range(9))
    )
    assert expected > 1.15


@pytest.mark.parametrize("limit", [0.001, 0.01, 0.5])
def test_a_canary_below_the_limit_has_an_expected_e_value_of_at_most_1(limit: float) -> None:
    expected = sum(
        binomial(40, x, limit) * math.exp(Tally(ignore_below=limit, errors=Worse(canary=Share(x, 40)))._above_limit())
        for x in range(41)
    )
    assert expected == pytest.approx(1)


@given(
    looks=st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 2000), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8
    )
)
def test_one_more_canary_error_is_never_less_evidence(looks: list[tuple[int, int, float, float]]) -> None:
    fewer = more = Tally()
    for number, (n1, n0, x1, x0) in enumerate(looks):
        errors = round(n1 * x1)
        another = min(n1, errors + 1) if number == 0 else errors
        stable = counts(n0, round(n0 * x0))
        fewer, more = fewer.after(counts(n1, errors), stable), more.after(counts(n1, another), stable)
    assert more.evidence >= fewer.evidence - 1e-9


@pytest.mark.parametrize(("canary", "stable"), [((0, 0), (100, 5)), ((100, 5), (0, 0)), ((0, 0), (0, 0))])
def test_look_at_one_version_leaves_the_e_value_unchanged(canary: tuple[int, int], stable: tuple[int, int]) -> None:
    tally = Tally().after(counts(*canary), counts(*stable))
    assert tally.evidence == pytest.approx(0)
    assert (tally.errors.canary.all, tally.errors.stable.all) == (canary[0], stable[0])


def test_equal_streams_do_not_alarm_and_an_obvious_fault_does_at_once() -> None:
    chance = random.Random(7)
    tally = Tally()
    for _ in range(2000):
        tally = tally.after(
            counts(5, sum(chance.random() < 0.01 for _ in range(5))),
            counts(95, sum(chance.random() < 0.01 for _ in range(95))),
        )
        assert not tally.alarm(0.01)
    looks = 0
    while not tally.alarm(0.01):
        tally = tally.after(counts(5, 2), counts(95, 1))
        looks += 1
    assert looks < 40


def test_large_counts_are_handled() -> None:
    worse = Tally().after(counts(1_000_000, 60_000), counts(19_000_000, 190_000))
    better = Tally().after(counts(1_000_000, 1_000), counts(19_000_000, 190_000))
    assert worse.alarm(1e-9)
    assert better.errors.evidence < math.log(1 / len(RATIOS))


def test_worse_canary_below_the_limit_does_not_alarm() -> None:
    look = (counts(10_000, 20), counts(190_000, 19))  # 0.2 % against 0.01 %
    assert Tally().after(*look).alarm(0.01)
    assert not Tally(ignore_below=0.005).after(*look).alarm(0.01)
    assert Tally(ignore_below=0.0005).after(*look).alarm(0.01)


def test_evidence_is_one_sentence() -> None:
    found = Tally().after(counts(1204, 35), counts(21877, 88))
    assert found.sentence(0.01) == (
        "canary 2.9 % errors of 1,204 requests, stable 0.4 % errors of 21,877 requests: "
        "worse, false-alarm chance under 1 %"
    )
    assert Tally().sentence(0.01) == "canary no requests, stable no requests: no difference shown"


# --- latency -------------------------------------------------------------------------------------------------------


def took(*milliseconds: int) -> RequestCounts:
    """Requests that took so long, in buckets of a millisecond."""
    buckets = tuple(Bucket(ms / 1000, (ms + 1) / 1000, milliseconds.count(ms)) for ms in sorted(set(milliseconds)))
    return RequestCounts(requests=len(milliseconds), latency=buckets)


HISTORY = took(*[50] * 600, *[100] * 390, *[200] * 10).latency  # median 50 ms, p99 100 ms


@pytest.mark.parametrize("slow", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("canary", "stable"), [(1, 9), (3, 4)])
def test_equally_fast_canary_has_an_expected_e_value_of_at_most_1(canary: int, stable: int, slow: float) -> None:
    tally = Tally(history=HISTORY)
    expected = sum(
        binomial(canary, x, slow)
        * binomial(stable, y, slow)
        * math.exp(tally.after(took(*[400] * x, *[20] * (canary - x)), took(*[400] * y, *[20] * (stable - y))).evidence)
        for x, y in product(range(canary + 1), range(stable + 1))
    )
    assert expected <= 1 + 1e-12


@pytest.mark.parametrize(("factor", "found"), [(1.0, False), (1.2, False), (2.0, True)])
def test_canary_slower_than_the_tolerance_is_found(factor: float, found: bool) -> None:
    chance = random.Random(11)
    tally = Tally(history=HISTORY)
    for _ in range(300):
        canary = [round(factor * chance.lognormvariate(4, 0.5)) for _ in range(5)]
        tally = tally.after(took(*canary), took(*[round(chance.lognormvariate(4, 0.5)) for _ in range(95)]))
    assert tally.alarm(0.01) is found
    assert ("slower than stable's p" in tally.sentence(0.01)) is found


def test_slow_tail_is_found() -> None:
    tally = Tally(history=HISTORY)
    for number in range(60):
        tail = number % 2
        canary = took(*[50] * 2, *[100] * 2, 900 if tail else 50)
        tally = tally.after(canary, took(*[50] * 57, *[100] * 37, 150 if tail else 50))
    assert tally.alarm(0.01)
    assert tally.sentence(0.01).startswith("10 % of the canary's 300 requests are slower than stable's p9")


def test_latency_is_not_judged_before_the_baseline_is_known() -> None:
    first = Tally().after(took(*[900] * 50), took(*[50] * 950))
    assert first.evidence == pytest.approx(0)
    assert first.after(took(*[900] * 50), took(*[50] * 950)).alarm(0.01)


def test_difference_below_the_tolerance_is_not_slow() -> None:
    tally = Tally(history=took(*[1] * 1000).latency)
    assert not tally.after(took(*[9] * 500), took(*[1] * 9500)).alarm(0.01)
    assert tally.after(took(*[14] * 500), took(*[1] * 9500)).alarm(0.01)
