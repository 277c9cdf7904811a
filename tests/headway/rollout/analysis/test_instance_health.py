"""Instances that crash or become unhealthy during an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.measurements import Measurements, RequestCounts, Verdict
from headway.domain.plan import Analyze, Condition
from headway.domain.traffic import Instance
from headway.rollout.analysis import evaluate
from headway.rollout.analysis.instance_health import UNHEALTHY, steadiness
from headway.rollout.analysis.sequential_test import Tally

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def readings(*seen: Sequence[Instance]) -> list[Measurements]:
    """One every second."""
    return [
        Measurements(
            at=BEGUN + timedelta(seconds=second),
            counts={"new": RequestCounts(requests=100 * second)},
            instances=tuple(one),
        )
        for second, one in enumerate(seen)
    ]


def instance(name: str = "a", *, ready: bool = True, run: str | None = "1") -> Instance:
    return Instance(name=name, address="host:1", ready=ready, detail="" if ready else "it answers 500", run=run)


def test_running_instances_pass() -> None:
    found = steadiness(readings(*[[instance("a"), instance("b")]] * 20))
    assert found is not None
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize("ready", [True, False])
def test_restarted_instance_is_a_crash(ready: bool) -> None:
    found = steadiness(
        readings(
            [instance("a"), instance("b")],
            [instance("a"), instance("b", run="2", ready=ready)],
        )
    )
    assert found is not None
    assert found.verdict is Verdict.FAIL
    assert found.evidence == "b crashed and was restarted"


@pytest.mark.parametrize("gone", [True, False])
def test_unhealthy_instance_is_inconclusive_then_fails(gone: bool) -> None:
    ill = [instance("b")] if gone else [instance("a", ready=False), instance("b")]
    whole = [instance("a"), instance("b")]
    short = steadiness(readings(whole, ill, ill))
    assert short is not None
    assert short.verdict is Verdict.INCONCLUSIVE
    why = "it is gone" if gone else "it answers 500"
    assert short.evidence == f"1 of 2 instances healthy for 1.0 s: a: {why}"
    long = steadiness(readings(whole, *[ill] * (int(UNHEALTHY) + 1)))
    assert long is not None
    assert long.verdict is Verdict.FAIL


def test_instance_replaced_by_a_ready_one_passes() -> None:
    whole = [instance("a"), instance("b")]
    starting = [instance("b"), instance("c", ready=False)]
    replaced = [instance("b"), instance("c")]
    found = steadiness(readings(whole, *[starting] * 3, *[replaced] * 10))
    assert found is not None
    assert (found.verdict, found.evidence) == (Verdict.PASS, "2 instances healthy")


def test_replacements_that_do_not_become_ready_fail() -> None:
    seen = [[instance("b"), instance(f"c{number}", ready=False)] for number in range(int(UNHEALTHY) + 1)]
    found = steadiness(readings([instance("a"), instance("b")], *seen))
    assert found is not None
    assert found.verdict is Verdict.FAIL
    assert found.evidence == "1 of 2 instances healthy for 5.0 s: c5: it answers 500"


def test_replacement_has_the_time_that_an_instance_has_to_start() -> None:
    whole = [instance("a"), instance("b")]
    starting = [instance("b"), instance("c", ready=False)]
    long = int(UNHEALTHY) + 10
    found = [steadiness(readings(whole, *[starting] * seconds), startup=long) for seconds in (long, long + 1)]
    assert [one.verdict for one in found if one] == [Verdict.INCONCLUSIVE, Verdict.FAIL]
    ill = [instance("b"), instance("a", ready=False)]
    judged = steadiness(readings(whole, *[ill] * (int(UNHEALTHY) + 1)), startup=long)
    assert judged is not None
    assert judged.verdict is Verdict.FAIL


def test_one_that_was_ready_and_is_unhealthy_is_not_starting() -> None:
    whole, ill = [instance("a"), instance("b")], [instance("b"), instance("c", ready=False)]
    found = steadiness(readings(whole, [instance("b"), instance("c")], *[ill] * (int(UNHEALTHY) + 1)), startup=60)
    assert found is not None
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("at_least", "verdict"), [(2, Verdict.PASS), (3, Verdict.FAIL), (9, Verdict.FAIL), (None, Verdict.FAIL)]
)
def test_autoscaler_may_remove_instances_down_to_its_minimum(at_least: int | None, verdict: Verdict) -> None:
    whole = [instance(name) for name in "abc"]
    found = steadiness(readings(whole, *[whole[:2]] * 10), startup=60, at_least=at_least)
    assert found is not None
    assert found.verdict is verdict


def test_crashed_replacement_fails() -> None:
    found = steadiness(
        readings([instance("a")], [instance("b", ready=False)], [instance("b", run=None)], [instance("b", run="2")])
    )
    assert found is not None
    assert (found.verdict, found.evidence) == (Verdict.FAIL, "b crashed and was restarted")


def test_losing_additional_instances_passes() -> None:
    found = steadiness(readings([instance("a")], [instance("a"), instance("b")], *[[instance("b")]] * 10))
    assert found is not None
    assert found.verdict is Verdict.PASS


def test_recovered_instance_passes() -> None:
    ill = [instance(ready=False)]
    well = [instance()]
    found = steadiness(readings(well, *[ill] * 4, well, *[ill] * 4, well))
    assert found is not None
    assert found.verdict is Verdict.PASS


def test_target_without_instance_data_is_not_judged() -> None:
    assert steadiness(readings([], [])) is None
    unknown = [instance(run=None)]
    found = steadiness(readings(unknown, [instance(run="2")]))
    assert found is not None
    assert found.verdict is Verdict.PASS


def test_crash_fails_an_analysis_with_good_metrics() -> None:
    step = Analyze(
        revision="new",
        window=10,
        conditions=(Condition(metric="success_rate", op=">=", limit=99),),
        min_requests=10,
    )
    steady = readings([instance()], [instance()])
    assert evaluate(Tally(), step, steady)[1].verdict is Verdict.PASS
    crashed = readings([instance()], [instance(run="2")])
    judgement = evaluate(Tally(), step, crashed)[1]
    assert judgement.verdict is Verdict.FAIL
    assert judgement.evidence == "a crashed and was restarted"
