"""Writes deliveries into the ledger, many in one transaction when many come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headway.ledger import Delivery, Ledger

__all__ = ["Intake"]

GATHER = 0.01  # seconds between two transactions when many come at once: a transaction costs as much as five deliveries


class Intake:
    """Whoever stores something waits until it is on disk; what comes meanwhile goes into the next transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Sequence[Delivery], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def store(self, deliveries: Sequence[Delivery]) -> None:
        """Returns when they are kept. Raises HeadwayError when the ledger cannot be written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((deliveries, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(
                    self._ledger.deliveries.receive, [one for deliveries, _ in batch for one in deliveries]
                )
            except Exception as error:  # noqa: BLE001  # each of those who wait raises it
                _tell(batch, error)
            else:
                _tell(batch, None)
            await asyncio.sleep(GATHER)


def _tell(batch: Sequence[tuple[Sequence[Delivery], asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():  # whoever waited has gone
            continue
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)
