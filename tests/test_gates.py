"""Holding an environment, whatever the ledger does meanwhile; and giving way to a newer push."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.errors import HeadwayError, LockLost, ServiceUnavailable, Superseded
from headway.events import PushEvent
from headway.ledger import Delivery, Lock, ReleaseRecord
from headway.ledger import Ledger as RealLedger
from tasks import gates

LOCK = Lock(app="shop", environment="production", holder="shop#1", token=1, lease=30)


class Ledger:
    """Renews, unless it is told to fail."""

    def __init__(self, *faults: HeadwayError | None) -> None:
        self.faults = list(faults)
        self.asked = 0

    def renew(self, lock: Lock) -> None:
        self.asked += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise fault


async def kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether it is still renewed after a while."""
    monkeypatch.setattr(gates, "LEASE", 0.06)
    monkeypatch.setattr(gates, "ledger", lambda: ledger)
    monkeypatch.setattr(gates, "get_run_logger", lambda: logging.getLogger("test"))
    going = asyncio.create_task(gates._keep(LOCK))
    await asyncio.sleep(0.3)
    ended = going.done()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    return not ended


async def test_a_ledger_that_fails_now_and_then_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(ServiceUnavailable("database is locked"), ServiceUnavailable("no space left"))
    assert await kept(ledger, monkeypatch)
    assert ledger.asked > 3


async def test_a_lock_that_was_lost_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(None, LockLost("our lock ran out"))
    assert not await kept(ledger, monkeypatch)
    assert ledger.asked == 2


# --- a newer push ----------------------------------------------------------------------------------------------


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealLedger]:
    monkeypatch.setattr(gates, "NEWER_POLL", 0.01)
    with RealLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        monkeypatch.setattr(gates, "ledger", lambda: opened)
        yield opened


def pushed(books: RealLedger, number: int) -> str:
    """A push was settled, and its run has started; the run's id."""
    sha = f"{number:040x}"
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after=sha, by="ann")
    books.receive([Delivery(app="shop", delivery=f"guid-{number}", event=event)])
    (newest,) = books.deliveries("shop", 1)
    assert books.settle_start([newest.id], newest.id, "shop", "refs/heads/main", sha)
    books.started(newest.id, f"run-{number}")
    return f"run-{number}"


def release(books: RealLedger, run: str) -> ReleaseRecord:
    return books.start_release("shop", "/repo", "main", flow_run_id=run, requested_by="ann")


async def test_checks_are_broken_off_by_a_newer_push_and_say_by_which(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))

    async def check() -> None:
        async with gates.while_newest(older), asyncio.timeout(10):
            release(books, pushed(books, 2))
            await asyncio.sleep(60)

    with pytest.raises(Superseded, match=r"superseded by shop#2: 0000000 was pushed"):
        await check()


async def test_a_run_that_was_followed_before_it_began_does_not_begin(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    pushed(books, 2)
    with pytest.raises(Superseded, match="superseded by the run run-2"):
        async with gates.while_newest(older):
            pytest.fail("it began")


async def test_a_run_that_nobody_pushed_gives_way_to_nothing(books: RealLedger) -> None:
    by_hand = release(books, "run-by-hand")
    pushed(books, 1)
    pushed(books, 2)
    async with gates.while_newest(by_hand):
        await asyncio.sleep(0.1)


async def test_a_cancel_from_elsewhere_is_a_cancel(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))

    async def work() -> None:
        async with gates.while_newest(older):
            await asyncio.sleep(60)

    going = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going


async def test_an_error_inside_stays_what_it_is(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    with pytest.raises(LockLost):
        async with gates.while_newest(older):
            raise LockLost("lost")


async def test_an_environment_is_not_entered_by_an_older_commit(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    pushed(books, 2)
    with pytest.raises(Superseded):
        async with gates.hold("shop", "staging", holder=older.name, revision="r1", release=older):
            pytest.fail("it holds it")
    assert books.lock_holder("shop", "staging") is None


async def test_what_holds_an_environment_is_left_alone(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    async with gates.hold("shop", "staging", holder=older.name, revision="r1", release=older):
        pushed(books, 2)
        async with gates.hold("shop", "staging", holder=older.name, revision="r1", release=older) as lock:
            books.renew(lock)
