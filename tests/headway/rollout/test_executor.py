"""Strategies, executor and judge on a fake target: in every case, one revision ends with all traffic."""

from __future__ import annotations

import asyncio
import http.server
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headway import config
from headway.domain.errors import Aborted, LockLost, RolloutFailed, Superseded, TargetError, UsageError
from headway.domain.measurements import Bucket, Measurements, RequestCounts, Verdict
from headway.domain.plan import (
    Analyze,
    AwaitReady,
    Condition,
    Launch,
    OperatorCommand,
    Plan,
    Promote,
    Rehearse,
    Retire,
    Route,
    Step,
)
from headway.domain.revision import Artifact, Autoscale, Health, LaunchSpec, Revision
from headway.domain.traffic import Capability, Observation, Traffic
from headway.ledger import RolloutRecord
from headway.rollout import strategies as make
from headway.rollout.analysis import judge
from headway.rollout.executor import RolloutContext, walk
from headway.rollout.step_titles import titles
from headway.rollout.strategies import Situation
from headway.testing import FakeTarget

SPEC = LaunchSpec(
    environment="production",
    target="fake/one",
    artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
    run="serve",
    health=Health(startup=0.3),
    drain=0.1,
)
OLD, NEW = SPEC.revision("shop", "1" * 40), SPEC.revision("shop", "2" * 40)
GOOD = Condition(metric="success_rate", op=">=", limit=99)


class Journal:
    """Records what would be written to the ledger."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.users: list[RequestCounts | None] = []
        self.orders: list[OperatorCommand | None] = []
        self.when = {"gate", "analyze"}  # orders come during these steps, one a look
        self.step = ""
        self.asked: list[str] = []

    def started(self, index: int, step: Step) -> None:
        self.step = step.kind
        self.lines.append(f"{index} {step.kind}")

    def measured(self, index: int, measurements: Measurements) -> None:
        self.lines.append(f"{index} measured")

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None:
        self.lines.append(f"{index} {outcome} {detail}".strip())
        self.users.append(users)

    def order(self) -> OperatorCommand | None:
        return self.orders.pop(0) if self.orders and self.step in self.when else None

    def waits(self, question: str, *, blocked: bool = True) -> None:
        self.asked.append(question)


def rollout(plan: Plan, target: FakeTarget, instances: int, *, deadline: float = 0.3) -> RolloutContext:
    spec = SPEC.model_copy(update={"instances": instances})
    specs = {revision.id: (revision, spec) for revision in (OLD, NEW)}
    record = RolloutRecord(
        id="r1",
        release_id=None,
        app="shop",
        environment="production",
        sequence=1,
        kind="release",
        state="running",
        reason="",
        token=1,
        plan=plan,
        started_at=datetime.now(UTC),
        finished_at=None,
    )
    return RolloutContext(
        record=record,
        target=target,
        specs=specs,
        journal=Journal(),
        on_line=lambda _: None,
        progress_deadline=deadline,
    )


class Guarded(FakeTarget):
    """Checks after every change: a revision with traffic has an instance, and the last healthy instance stays."""

    stops_first = False  # the strategy stops the old revision before the new one is ready, as configured

    def route(self, app: str, traffic: Traffic) -> None:
        super().route(app, traffic)
        self._guard(app)

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        before = self._healthy(revision.app)
        super().retire(revision, keep, drain)
        assert self._healthy(revision.app) or not before or self.stops_first, "the last healthy copy was retired"
        self._guard(revision.app)

    def _healthy(self, app: str) -> int:
        return sum(number for one, number in self._instances.get(app, {}).items() if one not in self.broken)

    def _guard(self, app: str) -> None:
        weights = self._traffic.get(app, Traffic()).weights
        assert sum(weights.values()) in (0, 100)
        assert all(self._instances[app].get(revision) for revision, weight in weights.items() if weight)


def live(instances: int = 2, *, requests: int = 100) -> Guarded:
    target = Guarded()
    target.requests = requests
    target.launch(OLD, SPEC.model_copy(update={"instances": instances}))
    target.route("shop", Traffic.all_to(OLD))
    return target


def stops_first(strategy: object) -> bool:
    return strategy == "recreate" or "max_unavailable" in str(strategy)


def environment(strategy: object, instances: int = 2) -> config.Environment:
    return config.Environment.model_validate({"target": "fake/one", "strategy": strategy, "instances": instances})


def planned(target: FakeTarget, strategy: object, instances: int = 2) -> Plan:
    spec = SPEC.model_copy(update={"instances": instances})
    return make.plan(
        environment(strategy, instances),
        target.observe("shop"),
        NEW,
        spec,
        stable=OLD.id,
        capabilities=target.capabilities,
    )


@pytest.fixture(autouse=True, scope="module")
def no_time_to_lose() -> Iterator[None]:
    """Poll without pauses: a fake target advances its state in each poll."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headway.rollout.steps.analyze.POLL", 0.01)
        patch.setattr("headway.rollout.operator_commands.POLL", 0.01)
        yield


STRATEGIES = some.sampled_from(
    [
        "recreate",
        "rolling",
        {"rolling": {"max_surge": 0, "max_unavailable": 1}},
        {"rolling": {"max_surge": "50%", "max_unavailable": "25%"}},
        {"blue_green": {"scale_down_delay": 0}},
        {"blue_green": {"scale_down_delay": 0, "post_promotion": {"window": "1ms", "success_rate": ">= 50"}}},
        {"canary": {"steps": ["5%", "50%", "100%"]}},
        {"canary": {"steps": [{"weight": "1%", "header": {"x-beta": "yes"}, "pause": "1ms"}, "100%"], "sticky": True}},
        {"canary": {"analysis": {"window": "1ms", "min_requests": 1, "success_rate": ">= 50", "false_rollback": "1%"}}},
    ]
)


@given(some.integers(1, 8), some.integers(0, 8), some.integers(0, 3), some.integers(0, 3))
def test_rolling_update_keeps_max_surge_and_max_unavailable(
    instances: int, before: int, surge: int, unavailable: int
) -> None:
    at = Situation(
        new="new", old="old" if before else None, instances=instances, old_instances=before, startup=1, drain=1
    )
    running = {"new": 0, "old": before}
    weights = {"old": 100} if before else {}
    for step in make.rolling(at, max_surge=surge, max_unavailable=unavailable).steps:
        match step:
            case Launch():
                running[step.revision] = step.instances
                assert sum(running.values()) <= max(before, instances + surge)
            case Route():
                weights = step.traffic.weights
                assert all(running[revision] for revision, weight in weights.items() if weight)
            case Retire():
                running[step.revision] = step.keep
                assert sum(running.values()) >= min(before, instances - (unavailable or not surge))
                assert step.keep or not weights.get(step.revision)
    assert running == {"new": instances, "old": 0}
    assert weights == {"new": 100}


@given(STRATEGIES, some.integers(1, 5), some.integers(0, 5))
def test_every_strategy_ends_with_only_the_new_revision(strategy: object, instances: int, before: int) -> None:
    target = live(before) if before else Guarded()
    target.stops_first = stops_first(strategy)
    asyncio.run(walk(rollout(planned(target, strategy, instances), target, instances)))
    seen = target.observe("shop")
    assert seen.live == NEW.id
    assert {revision: len(running) for revision, running in seen.instances.items()} == {NEW.id: instances}


@given(
    STRATEGIES,
    some.integers(1, 3),
    some.dictionaries(
        some.sampled_from(["launch", "ready", "route", "drain", "retire", "measure"]),
        some.lists(some.sampled_from([None, TargetError("refused")]), max_size=4),
        max_size=3,
    ),
    some.booleans(),
)
def test_after_any_failure_one_revision_has_all_traffic(
    strategy: object, instances: int, faults: dict[str, list[Exception | None]], broken: bool
) -> None:
    target = live(instances)
    target.stops_first = stops_first(strategy)
    plan = planned(target, strategy, instances)
    target.faults = faults
    if broken:
        target.broken = {NEW.id}
    try:
        asyncio.run(walk(rollout(plan, target, instances)))
        wanted = NEW.id
    except (TargetError, RolloutFailed):
        wanted = OLD.id
        target.faults = {}
        back = make.rollback(target.observe("shop"), OLD.id, instances=instances, startup=0.3, drain=0.1)
        asyncio.run(walk(rollout(back, target, instances)))
    seen = target.observe("shop")
    assert seen.live == wanted
    if set(seen.instances) != {wanted}:  # its traffic was gone, and it could not be stopped: the next rollout does it
        target.faults = {}
        rest = make.rollback(seen, wanted, instances=instances, startup=0.3, drain=0.1)
        assert {step.kind for step in rest.steps} == {"promote", "drain", "retire"}
        asyncio.run(walk(rollout(rest, target, instances)))
    assert set(target.observe("shop").instances) == {wanted}
    if not stops_first(strategy):
        assert all(traffic.weights for traffic in target.history)


@pytest.mark.parametrize("verb", ["drain", "retire"])
@pytest.mark.parametrize("backward", [False, True])
async def test_revision_that_cannot_be_stopped_does_not_undo_the_switch(verb: str, backward: bool) -> None:
    target = live(1)
    plan = planned(target, config.Rolling(), 1)
    if backward:
        target.launch(NEW, SPEC)
        target.route("shop", Traffic.all_to(NEW))
        plan = make.rollback(target.observe("shop"), OLD.id, instances=1, startup=0.3, drain=0.1)
    to, left = (OLD, NEW) if backward else (NEW, OLD)
    target.faults = {verb: [TargetError("somebody else has it")]}
    context = rollout(plan, target, 1)
    await walk(context)
    assert target.observe("shop").live == to.id
    assert isinstance(context.journal, Journal)
    said = f"done {left.id} is still running, and the next rollout stops it: somebody else has it"
    assert any(line.endswith(said) for line in context.journal.lines)


async def test_revision_that_cannot_be_stopped_before_the_switch_fails_the_rollout() -> None:
    target = live()
    plan = planned(target, config.Rolling(max_surge=0, max_unavailable=1), 2)
    target.faults = {"retire": [TargetError("somebody else has it")]}
    with pytest.raises(TargetError, match="somebody else has it"):
        await walk(rollout(plan, target, 2))


@pytest.mark.parametrize(("running", "begins"), [(1, 2), (3, 3), (9, 4)])
def test_with_an_autoscaler_the_new_revision_starts_with_the_current_count(running: int, begins: int) -> None:
    spec = SPEC.model_copy(update={"instances": 2, "autoscale": Autoscale(min=2, max=4, cpu=70)})
    target = FakeTarget()
    target.launch(OLD, SPEC.model_copy(update={"instances": running}))
    target.route("shop", Traffic.all_to(OLD))
    for strategy in (config.BlueGreen(), config.Rolling()):
        environment = config.Environment(target="fake/one", strategy=strategy)
        seen = target.observe("shop")
        plan = make.plan(environment, seen, NEW, spec, stable=OLD.id, capabilities=target.capabilities)
        launches = [step.instances for step in plan.steps if isinstance(step, Launch)]
        assert launches[-1] == begins
    assert make.enough(SPEC, target.observe("shop")) == 1


def test_rollback_after_no_change_has_no_steps() -> None:
    assert make.rollback(live().observe("shop"), OLD.id, instances=2, startup=1, drain=1).steps == ()


def test_rollback_to_a_warm_revision_switches_the_route_first() -> None:
    target = live()
    target.launch(NEW, SPEC)
    target.route("shop", Traffic.all_to(NEW))
    kinds = [step.kind for step in make.rollback(target.observe("shop"), OLD.id, instances=2, startup=1, drain=1).steps]
    assert kinds == ["route", "promote", "drain", "retire"]


def test_rollback_of_a_first_release_leaves_no_revision() -> None:
    target = FakeTarget()
    target.launch(NEW, SPEC)
    target.route("shop", Traffic.all_to(NEW))
    back = make.rollback(target.observe("shop"), None, instances=1, startup=1, drain=1)
    asyncio.run(walk(rollout(back, target, 1)))
    assert target.observe("shop").instances == {}
    assert target.observe("shop").traffic == Traffic()


def test_only_healthy_revision_is_kept_if_the_stable_one_does_not_start() -> None:
    target = FakeTarget()
    target.launch(NEW, SPEC)
    target.route("shop", Traffic.all_to(NEW))
    target.broken = {OLD.id}
    back = make.rollback(target.observe("shop"), OLD.id, instances=1, startup=0.3, drain=0.1)
    with pytest.raises(RolloutFailed):
        asyncio.run(walk(rollout(back, target, 1)))
    assert target.observe("shop").live == NEW.id


def test_healthy_revision_serves_all_traffic_while_the_stable_one_restarts() -> None:
    target = live()
    target.launch(NEW, SPEC)
    target.route("shop", Traffic(weights={NEW.id: 5, OLD.id: 95}))
    target.broken = {OLD.id}
    back = make.rollback(target.observe("shop"), OLD.id, instances=2, startup=0.3, drain=0.1)
    with pytest.raises(RolloutFailed, match="0 of 2 ready"):
        asyncio.run(walk(rollout(back, target, 2)))
    assert target.observe("shop").live == NEW.id
    target.broken = set()
    back = make.rollback(target.observe("shop"), OLD.id, instances=2, startup=0.3, drain=0.1)
    asyncio.run(walk(rollout(back, target, 2)))
    assert target.observe("shop").live == OLD.id


def kinds_back(target: FakeTarget) -> list[str]:
    back = make.rollback(target.observe("shop"), OLD.id, instances=3, startup=0.3, drain=0.1)
    return [f"{step.kind} {step.traffic}" if isinstance(step, Route) else step.kind for step in back.steps]


def test_stable_revision_with_most_traffic_gets_the_rest_before_it_scales_up() -> None:
    target = live()
    target.launch(NEW, SPEC)
    target.route("shop", Traffic(weights={NEW.id: 50, OLD.id: 50}))
    rest = ["promote", "drain", "retire"]
    assert kinds_back(target) == [f"route {OLD.id} 100 %", "launch", "await_ready", *rest]
    target.route("shop", Traffic(weights={NEW.id: 51, OLD.id: 49}))
    assert kinds_back(target) == ["launch", "await_ready", f"route {OLD.id} 100 %", *rest]


def test_next_rollout_cleans_up_an_interrupted_one() -> None:
    target = live()
    stray = SPEC.revision("shop", "3" * 40)
    target.launch(stray, SPEC)
    target.route("shop", Traffic(weights={OLD.id: 50, stray.id: 50}))
    plan = planned(target, "rolling")
    assert plan.old == OLD.id
    assert str(plan.steps[-1]) == f"retire {stray.id}"


def test_strategy_that_the_target_cannot_run_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError) as error:
        make.plan(
            environment("canary"),
            FakeTarget().observe("shop"),
            NEW,
            SPEC.model_copy(update={"target": "railway/prod"}),
            stable=None,
            capabilities={Capability.ATOMIC_SWITCH},
        )
    assert error.value.what == (
        "environments/production/strategy: canary needs weighted routing; target fake/one has: atomic switch"
    )
    assert error.value.hint == "choose one of: recreate, blue_green"


# --- analysis --------------------------------------------------------------------------------------------------------

WATCHED = {"rolling": {"analysis": {"window": "100ms", "min_requests": 20, "success_rate": ">= 99"}}}


def test_bad_revision_fails_at_its_first_weight() -> None:
    target = live()
    target.error_rate = {NEW.id: 0.3}
    with pytest.raises(RolloutFailed, match=r"success_rate >= 99 % does not hold: 69\.\d+ %"):
        asyncio.run(walk(rollout(planned(target, WATCHED), target, 2)))
    assert target.history[-1].weights == {NEW.id: 33, OLD.id: 67}


COMPARED = {"canary": {"analysis": {"window": "1s", "min_requests": 5, "false_rollback": "1%"}}}


def test_canary_worse_than_stable_fails_even_within_every_limit() -> None:
    target = live(requests=2000)
    target.error_rate = {NEW.id: 0.12, OLD.id: 0.02}
    with pytest.raises(RolloutFailed, match=r"canary 12 % errors .*, stable 2 % errors .*: worse, false-alarm chance"):
        asyncio.run(walk(rollout(planned(target, COMPARED), target, 2)))
    assert target.history[-1].weights == {NEW.id: 5, OLD.id: 95}


def test_canary_as_bad_as_stable_passes() -> None:
    target = live(requests=2000)
    target.error_rate = {NEW.id: 0.1, OLD.id: 0.1}
    going = rollout(planned(target, COMPARED), target, 2)
    asyncio.run(walk(going))
    assert target.observe("shop").live == NEW.id
    assert going.tally.sentence(0.01).endswith("no difference shown")


def test_no_canary_traffic_is_inconclusive() -> None:
    target = live(requests=10)  # 5 % of 10 is nothing
    with pytest.raises(RolloutFailed, match=r"no verdict .*no difference shown"):
        asyncio.run(walk(rollout(planned(target, COMPARED), target, 2)))


def test_only_shared_traffic_is_compared() -> None:
    plan = planned(live(), COMPARED)
    compared = [step.against for step in plan.steps if isinstance(step, Analyze)]
    assert [against and (against.stable, against.budget) for against in compared] == [(OLD.id, 0.01)] * 2
    limits = {"canary": {"analysis": {"success_rate": ">= 99", "false_rollback": "1%"}}}
    judged = [step.against for step in planned(live(), limits).steps if isinstance(step, Analyze)]
    assert [against is None for against in judged] == [False, False, True]


def test_too_few_requests_wait_and_are_never_a_pass() -> None:
    target = live(requests=0)
    with pytest.raises(RolloutFailed, match="no verdict"):
        asyncio.run(walk(rollout(planned(target, WATCHED), target, 2)))


def test_first_release_has_no_stable_version_to_compare() -> None:
    plan = planned(FakeTarget(), WATCHED)
    assert not any(isinstance(step, Analyze) for step in plan.steps)


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        (RequestCounts(requests=0), Verdict.INCONCLUSIVE),
        (RequestCounts(requests=19, errors=19), Verdict.INCONCLUSIVE),
        (RequestCounts(requests=20), Verdict.PASS),
        (RequestCounts(requests=100, errors=1), Verdict.PASS),
        (RequestCounts(requests=100, errors=2), Verdict.FAIL),
    ],
)
def test_success_rate(counts: RequestCounts, verdict: Verdict) -> None:
    assert judge([GOOD], counts, 20).verdict is verdict


def test_latency_that_was_not_measured_is_inconclusive() -> None:
    fast = Condition(metric="p99", op="<=", limit=0.5)
    assert judge([fast], RequestCounts(requests=50), 20).verdict is Verdict.INCONCLUSIVE
    assert judge([fast], RequestCounts(requests=50, latency=(Bucket(0.49, 0.5, 50),)), 20).verdict is Verdict.PASS
    slow = judge([GOOD, fast], RequestCounts(requests=50, latency=(Bucket(0.501, 0.501, 50),)), 20)
    assert slow.verdict is Verdict.FAIL
    assert slow.evidence == "p99 <= 500 ms does not hold: 501 ms (50 requests, 0 errors)"


def test_no_requests_and_no_limits_is_not_a_pass() -> None:
    assert judge([], RequestCounts(), 0).verdict is Verdict.INCONCLUSIVE


def test_reset_counters_start_from_zero() -> None:
    then = Measurements(at=datetime.now(UTC), counts={"r": RequestCounts(requests=1000, errors=10)})
    now = Measurements(at=datetime.now(UTC), counts={"r": RequestCounts(requests=30, errors=1)})
    assert now.since(then, "r") == RequestCounts(requests=30, errors=1)
    assert now.since(then, "unknown") == RequestCounts()


# --- the journal -----------------------------------------------------------------------------------------------------


def test_every_step_is_in_the_journal_before_and_after() -> None:
    target = FakeTarget()
    going = rollout(planned(target, "recreate", 1), target, 1)
    asyncio.run(walk(going))
    assert isinstance(going.journal, Journal)
    told = [line.split(" ")[:2] for line in going.journal.lines if not line.endswith(" measured")]
    assert told == [[str(index), word] for index, step in enumerate(going.plan.steps) for word in (step.kind, "done")]


def test_a_step_that_fails_is_in_the_journal_with_its_reason() -> None:
    target = live()
    target.faults = {"launch": [TargetError("no room")]}
    going = rollout(planned(target, "rolling"), target, 2)
    with pytest.raises(TargetError):
        asyncio.run(walk(going))
    assert isinstance(going.journal, Journal)
    told = [line for line in going.journal.lines if line != "0 measured"]
    assert told == ["0 launch", "0 failed TargetError: no room"]


def test_nothing_changes_after_the_lock_is_lost() -> None:
    class Lost(Journal):
        def started(self, index: int, step: Step) -> None:
            raise LockLost("somebody else has it")

    target = live()
    before = target.observe("shop")
    going = rollout(planned(target, "rolling"), target, 2)
    going.journal = Lost()
    with pytest.raises(LockLost):
        asyncio.run(walk(going))
    assert target.observe("shop") == before


def test_startup_timeout_names_the_reason() -> None:
    target = FakeTarget()
    target.launch(NEW, SPEC)
    plan = Plan(strategy="x", new=NEW.id, old=None, steps=(AwaitReady(revision=NEW.id, instances=3, deadline=0.2),))
    with pytest.raises(RolloutFailed, match=r"1 of 3 ready after 0\.2 s"):
        asyncio.run(walk(rollout(plan, target, 1)))


@given(some.lists(some.integers(-5, 120), min_size=1, max_size=4))
def test_weights_sum_to_100_or_there_is_no_traffic(weights: list[int]) -> None:
    given_weights = {f"r{index}": weight for index, weight in enumerate(weights)}
    if sum(weights) == 100 and min(weights) >= 0:
        assert Traffic(weights=given_weights).weights == given_weights
    else:
        with pytest.raises(ValueError, match=r"sum to|negative"):
            Traffic(weights=given_weights)


def test_revision_id_depends_on_what_runs() -> None:
    assert SPEC.revision("shop", "1" * 40) == OLD
    other = SPEC.model_copy(update={"env": {"A": "b"}}).revision("shop", "1" * 40)
    assert isinstance(other, Revision)
    assert other.id != OLD.id
    assert SPEC.model_copy(update={"instances": 9}).revision("shop", "1" * 40) == OLD
    assert str(Promote(revision="r")) == "promote r"


# --- people and newer releases ---------------------------------------------------------------------------------------

FOREVER = {"canary": {"steps": [{"weight": "5%", "pause": "forever"}, {"weight": "50%", "pause": "forever"}, "100%"]}}


def order(kind: str) -> OperatorCommand:
    return OperatorCommand.model_validate({"kind": kind, "by": "ann", "reason": "because"})


def steered(
    strategy: object, *orders: OperatorCommand | None, target: FakeTarget | None = None
) -> tuple[FakeTarget, Journal]:
    """Run with these commands, one per poll. An abort is not followed by a rollback here."""
    target = target or live()
    going = rollout(planned(target, strategy), target, 2)
    assert isinstance(going.journal, Journal)
    going.journal.orders = list(orders)
    asyncio.run(walk(going))
    return target, going.journal


def test_indefinite_pause_waits_for_a_promotion_each_time() -> None:
    target, journal = steered(FOREVER, None, None, order("skip"), None, order("skip"))
    assert [traffic.weights.get(NEW.id) for traffic in target.history[1:]] == [5, 50, 100]
    assert [asked for asked in journal.asked if asked] == ["go on from 5 %?", "go on from 50 %?"]
    assert journal.asked[-1] == ""
    assert sum("skipped by ann: because" in line for line in journal.lines) == 2


def test_promoted_rollout_skips_approvals_and_analysis() -> None:
    target, journal = steered(FOREVER, None, order("promote"))
    assert target.observe("shop").live == NEW.id
    assert [asked for asked in journal.asked if asked] == ["go on from 5 %?"]
    assert any("skipped: promoted by ann" in line for line in journal.lines)


def test_an_aborted_rollout_ends_at_once() -> None:
    target = live()
    with pytest.raises(Aborted, match="was aborted by ann: because"):
        steered(FOREVER, None, order("abort"), target=target)
    assert target.history[-1].weights == {NEW.id: 5, OLD.id: 95}


def test_abort_works_while_waiting_for_instances() -> None:
    target = live()
    going = rollout(planned(target, "rolling"), target, 2)
    assert isinstance(going.journal, Journal)
    going.journal.when, going.journal.orders = {"await_ready"}, [None, order("abort")]
    with pytest.raises(Aborted):
        asyncio.run(walk(going))
    assert [line for line in going.journal.lines if line.startswith("1 aborted")]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), "cancelled the release was cancelled"),
        (SystemExit(1), "cancelled the release was cancelled"),
        (Superseded("production: shop#6 takes its place"), "superseded production: shop#6 takes its place"),
        (Aborted("r2 was aborted by ann"), "aborted r2 was aborted by ann"),
        (TargetError("no answer"), "failed TargetError: no answer"),
    ],
)
def test_a_step_that_a_person_ended_has_not_failed(error: BaseException, outcome: str) -> None:
    target = live()
    going = rollout(planned(target, "rolling"), target, 2)
    target.faults["launch"] = [error]  # type: ignore[list-item]  # also what is no Exception
    assert isinstance(going.journal, Journal)
    with pytest.raises(type(error)):
        asyncio.run(walk(going))
    assert going.journal.lines[-1] == f"0 {outcome}"


def test_skipped_analysis_records_who_skipped_it() -> None:
    quiet = live(requests=0)
    _, journal = steered(WATCHED, None, None, None, order("skip"), order("promote"), target=quiet)
    assert any("skipped by ann: because; until then: 0 requests" in line for line in journal.lines)


def test_late_skip_does_not_skip_a_later_analysis() -> None:
    said: list[str] = []
    target = live()
    going = rollout(planned(target, FOREVER), target, 2)
    going.on_line = said.append
    assert isinstance(going.journal, Journal)
    late = order("skip").model_copy(update={"position": 1})
    going.journal.orders = [late, None, order("abort")]
    with pytest.raises(Aborted):
        asyncio.run(walk(going))
    assert target.history[-1].weights == {NEW.id: 5, OLD.id: 95}
    assert "skipped by ann: because: too late, that step is over" in said


def test_abort_works_between_steps() -> None:
    target = live()
    going = rollout(planned(target, "rolling"), target, 2)
    assert isinstance(going.journal, Journal)
    going.journal.when, going.journal.orders = {"promote"}, [order("abort")]
    with pytest.raises(Aborted):
        asyncio.run(walk(going))


async def test_cancellation_waits_for_a_change_in_progress(address: str) -> None:
    target = Answering(address, 0.4)
    target.launch(OLD, SPEC)
    target.launch(NEW, SPEC)
    step = Route(traffic=Traffic.all_to(NEW))
    going = rollout(Plan(strategy="rolling", new=NEW.id, old=OLD.id, steps=(step,)), target, 1)
    walking = asyncio.create_task(walk(going))
    assert await asyncio.to_thread(target.switching.wait, 60)
    walking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walking
    assert target.observe("shop").live == NEW.id  # it is in effect before the rollback reads the traffic


def test_no_verdict_asks_a_person_and_rolls_back_without_an_answer() -> None:
    target = live(requests=0)
    going = rollout(planned(target, WATCHED), target, 2)
    assert isinstance(going.journal, Journal)
    with pytest.raises(RolloutFailed, match="no verdict after"):
        asyncio.run(walk(going))
    (asked, _) = going.journal.asked
    assert asked.startswith("no verdict yet: 0 requests, 0 errors: fewer than the 20 it takes to judge; three ways out")


def test_no_verdict_waits_for_an_answer_if_configured() -> None:
    target = live(requests=0)
    going = rollout(planned(target, WATCHED), target, 2)
    going.patience = 60.0
    assert isinstance(going.journal, Journal)
    going.journal.orders = [None] * 8 + [order("promote")]
    asyncio.run(walk(going))
    assert target.observe("shop").live == NEW.id


def test_wait_for_an_answer_has_a_limit() -> None:
    target = live(requests=0)
    going = rollout(planned(target, WATCHED), target, 2)
    going.patience = 0.3
    with pytest.raises(RolloutFailed, match="no verdict after"):
        asyncio.run(walk(going))


def test_indefinite_pause_times_out_after_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "FOREVER", 0.1)
    with pytest.raises(RolloutFailed, match="no decision"):
        steered(FOREVER)


@pytest.mark.parametrize(
    "fault", [TargetError("Envoy does not answer"), None], ids=["a target that does not tell", "a judge that crashes"]
)
def test_failed_reading_is_inconclusive(fault: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    target = live()
    going = rollout(planned(target, COMPARED), target, 2, deadline=1.2)
    if fault:
        going.target.measure = lambda app: (_ for _ in ()).throw(fault)  # type: ignore[method-assign]
        words = "nothing can be measured: Envoy does not answer"
    else:
        monkeypatch.setattr("headway.rollout.steps.analyze.evaluate", lambda *_: 1 / 0)
        words = "the judge failed: ZeroDivisionError"
    with pytest.raises(RolloutFailed, match=f"no verdict after .*{words}"):
        asyncio.run(walk(going))


# --- blue-green, header rules, rehearsal -----------------------------------------------------------------------------


def test_blue_green_shows_the_preview_and_keeps_the_old_one_warm() -> None:
    target = live()
    plan = planned(target, {"blue_green": {"post_promotion": {"window": "1ms", "success_rate": ">= 99"}}})
    asyncio.run(walk(rollout(plan, target, 2)))
    assert target.history[1] == Traffic(weights={OLD.id: 100}, preview=NEW.id)
    assert target.observe("shop").live == NEW.id
    assert target.observe("shop").ready(OLD) == 2


def test_without_auto_promotion_a_person_switches() -> None:
    plan = planned(live(), {"blue_green": {"auto_promotion": False, "scale_down_delay": 0}})
    assert [step.kind for step in plan.steps] == [
        "launch", "await_ready", "route", "gate", "route", "promote", "drain", "retire",
    ]  # fmt: skip


def test_a_header_rule_holds_until_all_have_the_new_one() -> None:
    steps = [{"weight": "1%", "header": {"x-beta": "yes"}}, "50%", "100%"]
    routes = [step for step in planned(live(), {"canary": {"steps": steps}}).steps if isinstance(step, Route)]
    assert [[rule.name for rule in route.traffic.headers] for route in routes] == [["x-beta"], ["x-beta"], []]


def test_rollback_rehearsal_runs_before_the_first_weight() -> None:
    plan = planned(live(), {"canary": {"rehearse": True}})
    assert str(plan.steps[2]) == f"rehearse the rollback to {OLD.id} 100 %, within 1 s"
    (low,) = [step.low.weights for step in plan.steps if isinstance(step, Rehearse)]
    assert low == {NEW.id: 5, OLD.id: 95}


class Answering(Guarded):
    """A fake at an address; switching takes `seconds`."""

    def __init__(self, url: str, seconds: float = 0.0) -> None:
        super().__init__()
        self.url = url
        self.seconds = seconds
        self.switching = threading.Event()

    def observe(self, app: str) -> Observation:
        return super().observe(app).model_copy(update={"url": self.url})

    def route(self, app: str, traffic: Traffic) -> None:
        self.switching.set()
        time.sleep(self.seconds)
        super().route(app, traffic)


@pytest.fixture
def address() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def rehearsed(target: Answering, within: str = "60s") -> Journal:
    target.launch(OLD, SPEC)
    target.route("shop", Traffic.all_to(OLD))
    plan = planned(target, {"canary": {"rehearse": within}}, 1)
    going = rollout(plan, target, 1)
    assert isinstance(going.journal, Journal)
    asyncio.run(walk(going))
    return going.journal


def test_successful_rollback_rehearsal_is_recorded_and_the_rollout_continues(address: str) -> None:
    target = Answering(address)
    journal = rehearsed(target)
    assert any(re.search(r"the rollback took \d+ ms, 0 of \d+ requests failed", line) for line in journal.lines)
    assert [traffic.weights.get(NEW.id, 0) for traffic in target.history] == [0, 5, 0, 5, 50, 100]


def test_slow_rollback_rehearsal_fails_the_rollout(address: str) -> None:
    target = Answering(address, 0.3)
    with pytest.raises(RolloutFailed, match=r"was not promoted: the rollback took \d{3,} ms, 0 of"):
        rehearsed(target, "200ms")
    assert target.observe("shop").live == OLD.id


def test_rollback_rehearsal_with_failed_requests_fails_the_rollout() -> None:
    target = Answering("http://127.0.0.1:1")
    with pytest.raises(RolloutFailed, match=r"(\d+) of \1 requests failed \(/health: ConnectError\)"):
        rehearsed(target)
    assert target.observe("shop").live == OLD.id


def test_user_requests_are_counted_in_every_step_and_between_steps() -> None:
    target = live()
    target.error_rate = {NEW.id: 0.5}
    going = rollout(planned(target, {"canary": {"steps": ["50%", "100%"]}}), target, 2)
    asyncio.run(walk(going))
    assert isinstance(going.journal, Journal)
    assert len(going.journal.users) == len(going.plan.steps)
    assert sum(users.requests for users in going.journal.users if users) == 100 * len(going.plan.steps)
    assert sum(users.errors for users in going.journal.users if users) > 100


def test_step_titles_use_common_terms() -> None:
    compared = {"window": "1ms", "false_rollback": "1%", "success_rate": ">= 99"}
    plan = planned(live(), {"canary": {"analysis": compared, "rehearse": True}})
    assert [title for _, title in titles(plan)][2:9] == [
        "rehearse the rollback",
        "canary 5%",
        "analyse 5%",
        "canary 50%",
        "analyse 50%",
        "canary 100%",
        "analyse 100%",
    ]


def test_step_may_have_its_own_limits_or_no_analysis() -> None:
    steps = [
        {"weight": "5%", "judged": False},
        {"weight": "50%", "analysis": {"window": "3s", "p99": "<= 1s"}},
        "100%",
    ]
    plan = planned(live(), {"canary": {"steps": steps, "analysis": {"window": "9s", "success_rate": ">= 99"}}})
    assert [step.window for step in plan.steps if isinstance(step, Analyze)] == [3, 9]


def test_a_query_names_the_versions() -> None:
    limit = {"source": "prometheus/main", "query": 'sum(orders{revision="$revision"})', "limit": ">= 5"}
    plan = planned(live(), {"canary": {"analysis": {"metrics": {"orders": limit}}}})
    asked = [limit.query for step in plan.steps if isinstance(step, Analyze) for limit in step.metrics]
    assert asked == [f'sum(orders{{revision="{NEW.id}"}})'] * 3
