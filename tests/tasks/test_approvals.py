"""Holding an environment, whatever the ledger does meanwhile; and giving way to a newer push."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headway.config import Approval, Settings
from headway.domain.errors import EnvironmentLocked, HeadwayError, LockLost, ServiceUnavailable, Superseded
from headway.domain.events import NOTHING
from headway.domain.source import Source
from headway.ledger import Delivery, Lock, ReleaseRecord
from headway.ledger import Ledger as RealLedger
from headway.ledger.records import FORK
from headway.scm.webhooks import PullRequestEvent, PushEvent
from tasks import approvals

SHA = "a" * 40
LATER = datetime(2100, 1, 1, tzinfo=UTC)
LOCK = Lock(app="shop", environment="production", holder="shop#1", token=1, lease=30)


class Ledger:
    """Renews, unless it is told to fail."""

    def __init__(self, *faults: HeadwayError | None) -> None:
        self.faults = list(faults)
        self.asked = 0
        self.locks = self

    def renew(self, lock: Lock) -> None:
        self.asked += 1
        if fault := self.faults.pop(0) if self.faults else None:
            raise fault


async def kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether it is still renewed after a while."""
    monkeypatch.setattr(approvals, "LEASE", 0.06)
    monkeypatch.setattr(approvals, "ledger", lambda: ledger)
    monkeypatch.setattr(approvals, "get_run_logger", lambda: logging.getLogger("test"))
    going = asyncio.create_task(approvals._keep(LOCK))
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
    monkeypatch.setattr(approvals, "NEWER_POLL", 0.01)
    with RealLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        monkeypatch.setattr(approvals, "ledger", lambda: opened)
        yield opened


def pushed(books: RealLedger, number: int) -> str:
    """A push was settled, and its run has started; the run's id."""
    sha = f"{number:040x}"
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after=sha, by="ann")
    books.deliveries.receive([Delivery(app="shop", delivery=f"guid-{number}", event=event)])
    (newest,) = books.deliveries.recent("shop", 1)
    assert books.deliveries.claim_start([newest.id], newest.id, "shop", "refs/heads/main", sha)
    books.deliveries.mark_started(newest.id, f"run-{number}")
    return f"run-{number}"


def release(books: RealLedger, run: str) -> ReleaseRecord:
    return books.releases.start("shop", "/repo", "main", flow_run_id=run, requested_by="ann")


async def test_checks_are_broken_off_by_a_newer_push_and_say_by_which(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))

    async def check() -> None:
        async with approvals.while_newest(older), asyncio.timeout(10):
            release(books, pushed(books, 2))
            await asyncio.sleep(60)

    with pytest.raises(Superseded, match=r"superseded by shop#2: 0000000 was pushed"):
        await check()


async def test_a_run_that_was_followed_before_it_began_does_not_begin(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    pushed(books, 2)
    with pytest.raises(Superseded, match="superseded by the run run-2"):
        async with approvals.while_newest(older):
            pytest.fail("it began")


async def test_a_run_that_nobody_pushed_gives_way_to_nothing(books: RealLedger) -> None:
    by_hand = release(books, "run-by-hand")
    pushed(books, 1)
    pushed(books, 2)
    async with approvals.while_newest(by_hand):
        await asyncio.sleep(0.1)


async def test_a_cancel_from_elsewhere_is_a_cancel(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))

    async def work() -> None:
        async with approvals.while_newest(older):
            await asyncio.sleep(60)

    going = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going


async def test_an_error_inside_stays_what_it_is(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    with pytest.raises(LockLost):
        async with approvals.while_newest(older):
            raise LockLost("lost")


async def test_an_environment_is_not_entered_by_an_older_commit(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    pushed(books, 2)
    with pytest.raises(Superseded):
        async with approvals.hold("shop", "staging", holder=older.name, revision="r1", release=older):
            pytest.fail("it holds it")
    assert books.locks.holder("shop", "staging") is None


async def test_what_holds_an_environment_is_left_alone(books: RealLedger) -> None:
    older = release(books, pushed(books, 1))
    async with approvals.hold("shop", "staging", holder=older.name, revision="r1", release=older):
        pushed(books, 2)
        async with approvals.hold("shop", "staging", holder=older.name, revision="r1", release=older) as lock:
            books.locks.renew(lock)


# --- previews --------------------------------------------------------------------------------------------------


async def test_whoever_has_patience_waits_for_its_turn(books: RealLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "QUEUE_POLL", 0.01)
    monkeypatch.setattr(approvals, "get_run_logger", lambda: logging.getLogger("test"))
    lock = books.locks.acquire("shop", "preview", holder="shop#1", revision="r1", lease=30)
    assert lock

    async def tear_down() -> None:
        async with approvals.hold("shop", "preview", holder="teardown", revision="nothing", release=None, patient=True):
            pass

    with pytest.raises(EnvironmentLocked):
        async with approvals.hold("shop", "preview", holder="rollback", revision="r0", release=None):
            pytest.fail("it holds it")
    going = asyncio.create_task(tear_down())
    await asyncio.sleep(0.05)
    assert not going.done()
    books.locks.release(lock)
    await asyncio.wait_for(going, 10)


async def test_a_run_whose_pull_request_was_closed_says_so(books: RealLedger) -> None:
    event = PullRequestEvent(places=(), number=42, open=True, head=SHA, ref="r", base="main", fork=False, by="bob")
    for name, sha in (("guid-1", SHA), ("guid-2", NOTHING)):
        books.deliveries.receive([Delivery(app="shop", delivery=name, event=event)])
        (newest,) = books.deliveries.recent("shop", 1)
        assert books.deliveries.claim_start([newest.id], newest.id, "shop", "#42", sha)
        books.deliveries.mark_started(newest.id, f"run {name}")
    run = books.releases.start("shop-pr-42", "/repo", SHA, flow_run_id="run guid-1", requested_by="bob")
    with pytest.raises(Superseded, match="pull request #42 was closed"):
        async with approvals.while_newest(run):
            pytest.fail("it began")


@pytest.mark.parametrize("own", [True, False])
async def test_a_commit_that_was_let_in_is_not_asked_about_again(
    books: RealLedger, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """In the run that had asked, and in a later one of the same commit."""
    monkeypatch.setattr("tasks.release_record.ledger", lambda: books)
    monkeypatch.setattr(approvals, "request_entry", approvals.request_entry.fn)
    releases = [books.releases.start("shop-pr-42", "/r", SHA, flow_run_id=run, requested_by="bob") for run in "12"]
    for one in releases:
        books.releases.update(one.id, sha=SHA)
    source = Source(
        repo="/r",
        ref=SHA,
        sha=SHA,
        tree=SHA,
        author="Bob",
        subject="Change",
        committed_at=datetime.now(UTC),
        workspace="/w",
    )
    said = Settings(app="shop-pr-42")
    asked = await approvals.request_entry(releases[0], source, Approval())
    assert (asked.revision, asked.by) == (SHA[:12], [])
    books.approvals.decide(asked.id, "approved", by="ann", reason="", via="cli")
    release = releases[0 if own else 1]
    await approvals.let_in(release, source, said)
    (stage,) = books.stages.by_release(release.id)
    assert (stage.name, stage.state) == ("approval of the fork", "passed" if own else "skipped")
    assert "approved by ann" in stage.detail


async def test_who_may_let_forks_in_is_said_by_the_environment(books: RealLedger) -> None:
    release = books.releases.start("shop-pr-42", "/r", SHA, flow_run_id="1", requested_by="bob")
    asked = books.approvals.request(
        release.id, "preview", SHA[:12], evidence={}, expires_at=LATER, by=["ann"], not_author=False, asks=FORK
    )
    with pytest.raises(HeadwayError, match="bob may not decide"):
        books.approvals.decide(asked.id, "approved", by="bob", reason="", via="cli")
