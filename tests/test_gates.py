"""Holding an environment: a lease that is renewed whatever the ledger does meanwhile."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headway.errors import HeadwayError, LockLost, ServiceUnavailable
from headway.ledger import Lock
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
