"""Invariants of the plans of all strategies, for generated environments. Plans are applied as data."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as some

from headway.domain.plan import (
    Analyze,
    AwaitReady,
    Condition,
    Gate,
    Launch,
    Pause,
    Plan,
    Promote,
    Rehearse,
    Retire,
    Route,
)
from headway.domain.traffic import Instance, Observation, Traffic
from headway.rollout.strategies import Share, Situation, blue_green, canary, recreate, rollback, rolling

NEW, OLD, LEFTOVER = "2222222-abcdef", "1111111-abcdef", "0000000-abcdef"
ANALYZE = Analyze(
    revision=NEW, window=1.0, conditions=(Condition(metric="success_rate", op=">=", limit=99),), min_requests=1
)

situations = some.builds(
    Situation,
    new=some.just(NEW),
    old=some.just(OLD),
    instances=some.integers(1, 8),
    old_instances=some.integers(1, 8),
    leftovers=some.sampled_from([(), (LEFTOVER,)]),
    startup=some.just(30.0),
    drain=some.just(5.0),
) | some.builds(
    Situation,
    new=some.just(NEW),
    old=some.none(),
    instances=some.integers(1, 8),
    leftovers=some.sampled_from([(), (LEFTOVER,)]),
    startup=some.just(30.0),
    drain=some.just(5.0),
)
analyses = some.sampled_from([None, ANALYZE])
shares = some.lists(
    some.builds(
        Share,
        weight=some.integers(1, 99),
        then=some.sampled_from([None, Pause(seconds=1), Gate(asks="go on?", deadline=60)]),
        analyze=analyses,
    ),
    max_size=4,
).map(lambda found: [*sorted(found, key=lambda share: share.weight), Share(weight=100)])


@some.composite
def without_downtime(draw: some.DrawFn) -> tuple[Situation, Plan]:
    """Plans without downtime. Rolling has none if it may surge or must keep an instance."""
    at = draw(situations)
    match draw(some.sampled_from(["rolling", "canary", "blue_green"])):
        case "rolling":
            unavailable = draw(some.integers(0, at.instances - 1))
            surge = draw(some.integers(0 if unavailable else 1, 4))
            return at, rolling(at, max_surge=surge, max_unavailable=unavailable, analyze=draw(analyses))
        case "canary":
            return at, canary(at, shares=draw(shares), rehearse=draw(some.sampled_from([None, 1.0])))
        case _:
            return at, blue_green(
                at,
                keep_warm=draw(some.booleans()),
                preview=draw(some.booleans()),
                pre_promotion=draw(analyses),
                gate=draw(some.sampled_from([None, Gate(asks="promote it?", deadline=60)])),
                rehearse=draw(some.sampled_from([None, 1.0])),
                post_promotion=draw(analyses),
            )


class Walked:
    """An environment of which each step of a plan succeeds."""

    def __init__(self, ready: dict[str, int], traffic: Traffic) -> None:
        self.ready = dict(ready)
        self.traffic = traffic
        self.promoted: list[str] = []

    def steps(self, plan: Plan) -> Iterator[None]:
        """Take the steps one by one."""
        for step in plan.steps:
            match step:
                case Launch() | AwaitReady():
                    self.ready[step.revision] = max(self.ready.get(step.revision, 0), step.instances)
                case Route():
                    self.traffic = step.traffic
                case Retire():
                    self.ready[step.revision] = min(self.ready.get(step.revision, 0), step.keep)
                case Promote():
                    self.promoted.append(step.revision)
                case _:
                    pass
            yield

    def serves(self) -> bool:
        """Whether each revision with traffic has an instance."""
        weights = self.traffic.weights
        return bool(weights) and all(self.ready.get(revision, 0) for revision, weight in weights.items() if weight)


def before(at: Situation) -> Walked:
    ready = {at.old: at.old_instances} if at.old else {}
    return Walked(ready | dict.fromkeys(at.leftovers, 1), at.before)


@given(without_downtime())
def test_last_serving_revision_is_never_retired(planned: tuple[Situation, Plan]) -> None:
    at, plan = planned
    environment = before(at)
    served = environment.serves()
    for _ in environment.steps(plan):
        assert not served or environment.serves()
        served = environment.serves()
    assert served


@given(some.one_of(without_downtime(), situations.map(lambda at: (at, recreate(at)))))
def test_plan_ends_with_only_the_new_revision(planned: tuple[Situation, Plan]) -> None:
    at, plan = planned
    environment = before(at)
    for _ in environment.steps(plan):
        pass
    assert environment.traffic == Traffic.all_to(NEW)
    assert environment.ready[NEW] >= at.instances
    assert environment.promoted == [NEW]
    warm = {OLD} if plan.strategy == "blue_green" else set()
    assert {revision for revision, ready in environment.ready.items() if ready} - warm == {NEW}


@given(some.one_of(without_downtime(), situations.map(lambda at: (at, recreate(at)))))
def test_weights_sum_to_100_or_there_is_no_traffic(planned: tuple[Situation, Plan]) -> None:
    _, plan = planned
    for step in plan.steps:
        match step:
            case Route():
                routed = [step.traffic]
            case Rehearse():
                routed = [step.low, step.back]
            case _:
                continue
        assert all(sum(traffic.weights.values()) in (0, 100) for traffic in routed)


@given(
    wanted=some.integers(1, 5),
    ready=some.integers(0, 5),
    serving=some.integers(0, 5),
    weight=some.integers(0, 100),
    to=some.sampled_from([OLD, None]),
)
def test_rollback_ends_with_only_its_target_revision(
    wanted: int, ready: int, serving: int, weight: int, to: str | None
) -> None:
    counts = {OLD: ready, NEW: serving}
    weights = {OLD: weight, NEW: 100 - weight}
    traffic = Traffic(weights={revision: share for revision, share in weights.items() if share})
    instances = {
        revision: tuple(Instance(name=f"{revision}-{n}", address="", ready=True) for n in range(count))
        for revision, count in counts.items()
    }
    seen = Observation(app="shop", url=None, traffic=traffic, instances=instances)
    environment = Walked(counts, traffic)
    plan = rollback(seen, to, instances=wanted, startup=30, drain=5)
    served = environment.serves()
    for _ in environment.steps(plan):
        assert not served or to is None or environment.serves()
        served = environment.serves()
    assert environment.traffic == (Traffic.all_to(to) if to else Traffic())
    assert {revision for revision, count in environment.ready.items() if count} == ({to} if to else set())
