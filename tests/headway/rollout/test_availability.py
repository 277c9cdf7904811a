"""Rollouts on a platform that does not answer for a while."""

from __future__ import annotations

import asyncio
import time

import pytest

from headway import config
from headway.domain.errors import Aborted, TargetError, TargetUnavailable
from headway.domain.plan import OperatorCommand
from headway.domain.traffic import Traffic
from headway.ledger import Ledger
from headway.rollout import availability
from headway.rollout import strategies as make
from headway.rollout.availability import answered
from headway.rollout.executor import walk
from headway.rollout.planning import plan_back
from headway.testing import FakeTarget
from tests.headway.rollout.test_executor import NEW, OLD, SPEC, Journal, live, planned, rollout


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "POLL", 0.01)


@pytest.mark.parametrize("verb", ["launch", "ready", "route", "observe", "drain", "retire"])
@pytest.mark.parametrize("strategy", [config.Rolling(), config.Canary.model_validate({"steps": ["50%", "100%"]})])
async def test_a_step_goes_on_when_the_platform_answers_again(verb: str, strategy: object) -> None:
    target, said = live(), list[str]()
    plan = planned(target, strategy)
    target.faults = {verb: [TargetUnavailable("the API server does not answer")] * 5}
    context = rollout(plan, target, 2, deadline=30)
    context.on_line = said.append
    await walk(context)
    assert target.observe("shop").live == NEW.id
    assert "the API server does not answer: waiting for it, at most 30 s" in said
    assert "it answers again" in said


async def test_a_platform_that_stays_away_ends_the_rollout_at_the_deadline() -> None:
    target = live()
    plan = planned(target, config.Rolling())
    target.faults = {"route": [TargetUnavailable("the API server does not answer")] * 1000}
    begun = time.monotonic()
    with pytest.raises(TargetUnavailable):
        await walk(rollout(plan, target, 2, deadline=0.3))
    assert time.monotonic() - begun >= 0.3


async def test_a_refusal_is_not_waited_for() -> None:
    target = live()
    plan = planned(target, config.Rolling())
    target.faults = {"route": [TargetError("forbidden")]}
    with pytest.raises(TargetError, match="forbidden"):
        await walk(rollout(plan, target, 2, deadline=60))
    assert target.faults == {"route": []}


async def test_a_rollout_can_be_aborted_while_the_platform_is_away() -> None:
    target = live()
    plan = planned(target, config.Rolling())
    target.faults = {"launch": [TargetUnavailable("the API server does not answer")] * 1000}
    context = rollout(plan, target, 2, deadline=60)
    assert isinstance(context.journal, Journal)
    context.journal.when = {"launch"}
    context.journal.orders = [None, None, OperatorCommand(kind="abort", by="ann")]
    with pytest.raises(Aborted):
        await walk(context)


async def test_a_rollback_is_planned_when_the_platform_answers_again() -> None:
    target, said = FakeTarget(), list[str]()
    target.launch(OLD, SPEC)
    target.launch(NEW, SPEC)
    target.route("shop", Traffic.all_to(NEW))
    target.faults = {"observe": [TargetUnavailable("the API server does not answer")] * 5}
    plan = await answered(lambda: asyncio.to_thread(plan_back, target, "shop", OLD, SPEC), on_line=said.append)
    assert plan.steps == make.rollback(target.observe("shop"), OLD.id, instances=1, startup=0.3, drain=0.1).steps
    assert len(said) == 2


def test_the_ledger_knows_that_two_revisions_serve() -> None:
    with Ledger.open("sqlite://") as ledger:
        lock = ledger.locks.acquire("shop", "production", holder="test", revision="r", lease=30)
        assert lock
        plan = planned(live(), config.Canary.model_validate({"steps": ["50%", "100%"]}))
        record = ledger.rollouts.start(None, "shop", "production", plan, kind="release", reason="", token=lock.token)
        seen = []
        for index, step in enumerate(plan.steps):
            ledger.rollouts.start_step(record, index, step, lock.token)
            ledger.rollouts.finish_step(record, index, "done", "", None, lock.token)
            seen.append((step.kind, ledger.rollouts.split("shop", "production") is not None))
        ledger.rollouts.finish(record.id, "done")
        assert ledger.rollouts.split("shop", "production") is None
    kinds = [kind for kind, split in seen if split]
    assert kinds == ["route"], seen
