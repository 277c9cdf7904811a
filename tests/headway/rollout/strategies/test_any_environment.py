"""Every strategy reaches an end from whatever an environment looks like, what interrupted rollouts left included.

A plan that never ends shows as a plan function that does not return: the tests have a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headway import config
from headway.domain.plan import Analyze, AwaitReady, Launch, Plan, Promote, Retire, Route
from headway.domain.revision import Artifact, Autoscale, LaunchSpec
from headway.domain.traffic import Capability, Instance, Observation, Traffic
from headway.rollout import strategies as make

SPEC = LaunchSpec(
    environment="production",
    target="fake/one",
    artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1),
    run="serve",
)
NEW, OLD, STRAY = (SPEC.revision("shop", digit * 40) for digit in "213")
LIMITS = {"window": "10s", "success_rate": ">= 99"}
PROBES = {**LIMITS, "synthetic": {"requests": [{"get": "/"}]}}
STRATEGIES = [
    "recreate",
    "rolling",
    {"rolling": {"max_surge": 0, "max_unavailable": 1}},
    {"rolling": {"max_surge": 0, "max_unavailable": "1%"}},
    {"rolling": {"max_surge": 3, "max_unavailable": 3, "analysis": LIMITS}},
    {"rolling": {"max_surge": "50%", "max_unavailable": "25%"}},
    "blue_green",
    {"blue_green": {"scale_down_delay": 0, "post_promotion": LIMITS}},
    {"blue_green": {"auto_promotion": False, "rehearse": True, "pre_promotion": PROBES}},
    {"canary": {"steps": ["5%", "50%", "100%"], "analysis": {**LIMITS, "false_rollback": "1%"}, "rehearse": True}},
    {"canary": {"steps": [{"weight": "1%", "header": {"x-beta": "yes"}, "pause": "forever"}, "100%"]}},
    {"canary": {"steps": ["100%"]}},
]
counts = some.fixed_dictionaries({revision.id: some.integers(0, 4) for revision in (NEW, OLD, STRAY)})


def rules(strategy: object) -> config.Environment:
    return config.Environment.model_validate({"target": "fake/one", "strategy": strategy})


def observed(running: dict[str, int], traffic: Traffic, broken: frozenset[str] = frozenset()) -> Observation:
    instances = {
        revision: tuple(
            Instance(name=f"{revision}-{n}", address="", ready=revision not in broken) for n in range(count)
        )
        for revision, count in running.items()
        if count
    }
    return Observation(app="shop", url=None, traffic=traffic, instances=instances)


@some.composite
def environments(draw: some.DrawFn) -> Observation:
    """Any number of instances of three revisions, ready or not, with any share of the traffic each, or with none."""
    running = draw(counts)
    first, second = draw(some.integers(0, 100)), draw(some.integers(0, 100))
    low, high = min(first, second), max(first, second)
    weights = draw(
        some.sampled_from(
            [
                {},
                {NEW.id: 100},
                {OLD.id: 100},
                {NEW.id: low, OLD.id: 100 - low},
                {NEW.id: low, OLD.id: high - low, STRAY.id: 100 - high},
            ]
        )
    )
    traffic = Traffic(
        weights={revision: weight for revision, weight in weights.items() if weight or draw(some.booleans())},
        preview=draw(some.sampled_from([None, NEW.id, STRAY.id])),
        sticky=draw(some.booleans()),
    )
    return observed(running, traffic, draw(some.frozensets(some.sampled_from(sorted(running)), max_size=2)))


def planned(
    strategy: object, seen: Observation, instances: int, *, stable: str | None = OLD.id, autoscale: bool = False
) -> Plan:
    limits = Autoscale(min=1, max=6, cpu=70) if autoscale else None
    spec = SPEC.model_copy(update={"instances": instances, "autoscale": limits})
    return make.plan(rules(strategy), seen, NEW, spec, stable=stable, capabilities=frozenset(Capability))


class Walked:
    """Number of instances and traffic after each step of a plan, when every step succeeds."""

    def __init__(self, seen: Observation) -> None:
        self.ready = {revision: seen.ready(revision) for revision in seen.instances}
        self.running = {revision: len(running) for revision, running in seen.instances.items()}
        self.traffic = seen.traffic

    def walk(self, plan: Plan) -> Iterator[None]:
        for step in plan.steps:
            match step:
                case Launch():
                    self.running[step.revision] = max(self.running.get(step.revision, 0), step.instances)
                case AwaitReady():
                    self.ready[step.revision] = max(self.ready.get(step.revision, 0), step.instances)
                case Route():
                    self.traffic = step.traffic
                case Retire():
                    for kept in (self.ready, self.running):
                        kept[step.revision] = min(kept.get(step.revision, 0), step.keep)
                case _:
                    pass
            yield

    def serves(self) -> bool:
        serving = [revision for revision, weight in self.traffic.weights.items() if weight]
        return bool(serving) and all(self.ready.get(revision, 0) for revision in serving)


@given(
    some.sampled_from(STRATEGIES),
    environments(),
    some.integers(1, 8),
    some.sampled_from([None, NEW.id, OLD.id]),
    some.booleans(),
)
def test_every_plan_ends_with_the_new_revision_within_a_bound(
    strategy: object, seen: Observation, instances: int, stable: str | None, autoscale: bool
) -> None:
    plan = planned(strategy, seen, instances, stable=stable, autoscale=autoscale)
    end = Walked(seen)
    for _ in end.walk(plan):
        pass
    assert len(plan.steps) <= 20 + 5 * (8 + 4)  # 5 steps for each instance that is started or stopped
    assert end.traffic == Traffic.all_to(NEW)
    assert end.ready[NEW.id] >= instances
    warm = {plan.replaced} if plan.strategy == "blue_green" else set()
    assert {revision for revision, count in end.running.items() if count} - warm == {NEW.id}
    assert [step.revision for step in plan.steps if isinstance(step, Promote)] == [NEW.id]


@given(some.sampled_from(STRATEGIES), counts, some.integers(1, 8), some.booleans(), some.booleans())
def test_what_is_live_already_is_neither_replaced_nor_without_traffic(
    strategy: object, running: dict[str, int], instances: int, split: bool, ready: bool
) -> None:
    running = running | {NEW.id: max(1, running[NEW.id])}
    traffic = Traffic(weights={NEW.id: 60, STRAY.id: 40}) if split and running[STRAY.id] else Traffic.all_to(NEW)
    seen = observed(running, traffic, frozenset() if ready else frozenset({NEW.id}))
    plan = planned(strategy, seen, instances, stable=NEW.id)
    at = Walked(seen)
    for _ in at.walk(plan):
        assert at.running[NEW.id] >= min(running[NEW.id], instances)
        assert at.traffic.weights.get(NEW.id)
        assert at.serves() or not ready
    assert {revision: count for revision, count in at.running.items() if count} == {NEW.id: instances}
    assert (plan.old, plan.replaced) == (NEW.id, None)
    assert not any(isinstance(step, Analyze) for step in plan.steps)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_second_release_of_the_same_commit_starts_and_stops_nothing(strategy: object) -> None:
    plan = planned(strategy, observed({NEW.id: 2}, Traffic.all_to(NEW)), 2, stable=NEW.id)
    assert [str(step) for step in plan.steps] == [
        f"launch 2 of {NEW}",
        f"await 2 ready of {NEW}, at most 60 s",
        f"route {NEW} 100 %",
        f"promote {NEW}",
    ]


def test_a_different_number_of_instances_is_a_change_of_scale() -> None:
    seen = observed({NEW.id: 3}, Traffic.all_to(NEW))
    assert f"retire {NEW} down to 1" in [str(step) for step in planned("rolling", seen, 1, stable=NEW.id).steps]
    assert f"launch 5 of {NEW}" in [str(step) for step in planned("rolling", seen, 5, stable=NEW.id).steps]
    autoscaled = planned("rolling", observed({NEW.id: 9}, Traffic.all_to(NEW)), 1, stable=NEW.id, autoscale=True)
    assert not any(isinstance(step, Retire) for step in autoscaled.steps)


@pytest.mark.parametrize(
    ("strategy", "judged"),
    [
        ({"rolling": {"analysis": LIMITS}}, True),
        ({"blue_green": {"post_promotion": LIMITS}}, True),
        ({"canary": {"analysis": {**LIMITS, "false_rollback": "1%"}}}, True),
        ("rolling", False),
        ("recreate", False),
    ],
    ids=str,
)
def test_what_has_all_traffic_from_an_interrupted_rollout_is_still_judged(strategy: object, judged: bool) -> None:
    seen = observed({NEW.id: 2, OLD.id: 2}, Traffic.all_to(NEW))
    plan = planned(strategy, seen, 2, stable=OLD.id)
    analyses = [step for step in plan.steps if isinstance(step, Analyze)]
    assert [(step.revision, step.against) for step in analyses] == ([(NEW.id, None)] if judged else [])
    assert f"retire {OLD}" in map(str, plan.steps)


def test_split_traffic_without_a_stable_revision_is_not_taken_for_a_release_of_the_new_one() -> None:
    seen = observed({NEW.id: 2, STRAY.id: 2}, Traffic(weights={NEW.id: 60, STRAY.id: 40}))
    plan = planned({"canary": {"analysis": LIMITS}}, seen, 2, stable=None)
    assert plan.old == STRAY.id
    assert any(isinstance(step, Analyze) for step in plan.steps)


@given(some.integers(1, 8), some.integers(0, 8), some.integers(0, 3), some.integers(0, 12))
def test_rolling_ends_whatever_its_limits_are(instances: int, before: int, surge: int, unavailable: int) -> None:
    seen = observed({OLD.id: before}, Traffic.all_to(OLD) if before else Traffic())
    at = make.Situation.of(seen, NEW, stable=OLD.id, instances=instances, startup=1, drain=1)
    end = Walked(seen)
    for _ in end.walk(make.rolling(at, max_surge=surge, max_unavailable=unavailable)):
        pass
    assert {revision: count for revision, count in end.running.items() if count} == {NEW.id: instances}


def test_instances_of_no_old_revision_are_refused() -> None:
    with pytest.raises(ValueError, match="2 instances of no old revision"):
        make.Situation(new=NEW.id, old=None, old_instances=2, instances=2, startup=1, drain=1)
