"""Old steps and readings are removed; those of what is live, and the releases, stay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.errors import UsageError
from headway.domain.measurements import Measurements
from headway.domain.plan import Plan
from headway.ledger import Ledger, RolloutRecord
from headway.system.retention import keep_period

MONTH = timedelta(days=30)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(database: str, clock: Clock) -> Ledger:
    return Ledger.open(database, clock)


def rolled_out(ledger: Ledger, app: str, number: int) -> RolloutRecord:
    lock = ledger.locks.acquire(app, "staging", holder="x", revision=f"r{number}", lease=30)
    assert lock is not None
    plan = Plan(strategy="rolling", new=f"r{number}", old=None, steps=())
    rollout = ledger.rollouts.start(None, app, "staging", plan, kind="release", reason="", token=lock.token)
    ledger.readings.add(rollout.id, 0, Measurements(at=START, counts={}))
    ledger.readings.add(rollout.id, 0, Measurements(at=START, counts={}))
    ledger.rollouts.finish(rollout.id, "done")
    ledger.locks.release(lock)
    return rollout


def test_readings_older_than_the_period_are_removed_but_for_the_live_revision(ledger: Ledger, clock: Clock) -> None:
    old, live = rolled_out(ledger, "shop", 1), rolled_out(ledger, "shop", 2)
    other = rolled_out(ledger, "other", 1)
    clock.now += timedelta(days=29)
    assert ledger.journal.count(MONTH) == {"steps": 0, "measurements": 0}
    clock.now += timedelta(days=2)
    assert ledger.journal.count(MONTH) == {"steps": 0, "measurements": 2}
    assert ledger.readings.by_rollout(old.id)

    assert ledger.journal.remove(MONTH) == {"steps": 0, "measurements": 2}

    assert ledger.readings.by_rollout(old.id) == []
    assert [len(ledger.readings.by_rollout(rollout.id)) for rollout in (live, other)] == [2, 2]
    assert [rollout.id for rollout in ledger.rollouts.done("shop", "staging", 9)] == [live.id, old.id]
    assert ledger.journal.remove(MONTH) == {"steps": 0, "measurements": 0}


def test_more_than_one_batch_is_removed(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.ledger.journal_retention.BATCH", 2)
    for number in range(6):
        rolled_out(ledger, "shop", number)
    clock.now += timedelta(days=31)
    assert ledger.journal.remove(MONTH) == {"steps": 0, "measurements": 10}


def test_a_wrong_period_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWAY_KEEP_DAYS", raising=False)
    assert keep_period() == timedelta(days=90)
    monkeypatch.setenv("HEADWAY_KEEP_DAYS", "7")
    assert keep_period() == timedelta(days=7)
    for wrong in ("0", "-1", "week"):
        monkeypatch.setenv("HEADWAY_KEEP_DAYS", wrong)
        with pytest.raises(UsageError, match="HEADWAY_KEEP_DAYS: expected a number of days"):
            keep_period()
