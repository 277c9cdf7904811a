"""A newer push ends the checks of an older release, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.errors import LockLost, Superseded
from headway.domain.events import NOTHING
from headway.ledger import Delivery, Ledger
from headway.scm.webhooks import PullRequestEvent
from tasks import supersede
from tasks.release_record import ReleaseSession
from tasks.supersede import while_newest
from tests.tasks.pushes import pushed, release

SHA = "a" * 40


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(supersede, "POLL", 0.01)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


async def test_a_newer_push_cancels_the_checks_and_is_named(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))

    async def check() -> None:
        async with while_newest(older), asyncio.timeout(60):
            release(ledger, pushed(ledger, 2))
            await asyncio.sleep(600)

    with pytest.raises(Superseded, match=r"superseded by shop#2: 0000000 was pushed"):
        await check()


async def test_a_run_that_is_superseded_already_does_not_start(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))
    pushed(ledger, 2)
    with pytest.raises(Superseded, match="superseded by the run run-2"):
        async with while_newest(older):
            pytest.fail("it started")


async def test_run_not_started_by_a_push_is_not_superseded(ledger: Ledger) -> None:
    by_hand = release(ledger, "run-by-hand")
    pushed(ledger, 1)
    pushed(ledger, 2)
    async with while_newest(by_hand):
        await asyncio.sleep(0.1)


async def test_cancellation_without_a_newer_push_stays_a_cancellation(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))

    async def work() -> None:
        async with while_newest(older):
            await asyncio.sleep(600)

    running = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_error_inside_is_raised_unchanged(ledger: Ledger) -> None:
    older = release(ledger, pushed(ledger, 1))
    with pytest.raises(LockLost):
        async with while_newest(older):
            raise LockLost("lost")


async def test_cancellation_names_the_closed_pull_request(ledger: Ledger) -> None:
    event = PullRequestEvent(places=(), number=42, open=True, head=SHA, ref="r", base="main", fork=False, by="bob")
    for name, sha in (("guid-1", SHA), ("guid-2", NOTHING)):
        ledger.deliveries.receive([Delivery(app="shop", delivery=name, event=event)])
        (newest,) = ledger.deliveries.recent("shop", 1)
        assert ledger.deliveries.claim_start([newest.id], newest.id, "shop", "#42", sha)
        ledger.deliveries.mark_started(newest.id, f"run {name}")
    run = ledger.releases.start("shop-pr-42", "/repo", SHA, flow_run_id="run guid-1", requested_by="bob")
    with pytest.raises(Superseded, match="pull request #42 was closed"):
        async with while_newest(ReleaseSession(ledger, run)):
            pytest.fail("it started")
