"""The environment lock: renewal despite ledger errors, and releases superseded by a newer push."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from blocks import loading
from headway.domain.errors import EnvironmentLocked, HeadwayError, LockLost, ServiceUnavailable, Superseded
from headway.domain.ports import Target
from headway.ledger import Ledger, Lock
from headway.testing import FakeTarget
from tasks import environment_lock
from tasks.environment_lock import hold, hold_for_release
from tests.tasks.pushes import pushed, release

pytestmark = pytest.mark.slow

LOCK = Lock(app="shop", environment="production", holder="shop#1", token=1, lease=30)


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "get_run_logger", lambda: logging.getLogger("test"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


# --- renewal -----------------------------------------------------------------------------------------------------


class FailingLedger:
    """A ledger whose locks fail to renew as often as there are faults."""

    def __init__(self, *faults: HeadwayError | None) -> None:
        self.faults = list(faults)
        self.renewals = 0
        self.locks = self

    def renew(self, lock: Lock) -> None:
        self.renewals += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise fault


async def test_the_lock_is_renewed_after_errors_of_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "LEASE", 0.06)
    ledger = FailingLedger(ServiceUnavailable("database is locked"), ServiceUnavailable("no space left"))
    renewal = asyncio.create_task(environment_lock._keep_alive(cast("Ledger", ledger), LOCK))
    async with asyncio.timeout(60):
        while ledger.renewals < 4:
            await asyncio.sleep(0.01)
    assert not renewal.done()
    renewal.cancel()


async def test_a_lost_lock_is_not_renewed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "LEASE", 0.06)
    ledger = FailingLedger(None, LockLost("the lock expired"))
    await asyncio.wait_for(environment_lock._keep_alive(cast("Ledger", ledger), LOCK), 60)
    assert ledger.renewals == 2


# --- the queue ---------------------------------------------------------------------------------------------------


async def test_a_release_of_an_older_commit_does_not_get_the_lock(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))
    pushed(ledger, 2)
    with pytest.raises(Superseded):
        async with hold_for_release(older, "staging", "r1"):
            pytest.fail("it got the lock")
    assert ledger.locks.holder("shop", "staging") is None


async def test_a_push_does_not_interrupt_a_release_that_holds_the_lock(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))
    async with hold_for_release(older, "staging", "r1") as session:
        pushed(ledger, 2)
        ledger.locks.renew(session.lock)


async def test_a_patient_holder_waits_for_the_lock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "POLL", 0.01)
    lock = ledger.locks.acquire("shop", "preview", holder="shop#1", revision="r1", lease=30)
    assert lock

    async def tear_down() -> None:
        async with hold(ledger, "shop", "preview", holder="teardown", revision="nothing", patient=True):
            pass

    with pytest.raises(EnvironmentLocked):
        async with hold(ledger, "shop", "preview", holder="rollback", revision="r0"):
            pytest.fail("it got the lock")
    waiting = asyncio.create_task(tear_down())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    ledger.locks.release(lock)
    await asyncio.wait_for(waiting, 60)


# --- the session -------------------------------------------------------------------------------------------------


async def test_a_session_loads_and_claims_each_target_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    claims: list[tuple[str, int]] = []

    class Claimed(FakeTarget):
        def claim(self, app: str, token: int) -> None:
            claims.append((app, token))

    async def load_target(slug: str) -> Target:
        loaded.append(slug)
        return Claimed()

    monkeypatch.setattr(loading, "load_target", load_target)
    async with hold(ledger, "shop", "staging", holder="rollback", revision="r1") as session:
        assert await session.target("fake/a") is await session.target("fake/a")
        await session.target("fake/b")
        assert claims == [("shop", session.lock.token)] * 2
    assert loaded == ["fake/a", "fake/b"]
    assert ledger.locks.holder("shop", "staging") is None
