"""Write deliveries to the ledger, those that arrive together in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headway.ledger import Delivery, Ledger

__all__ = ["DeliveryBatcher"]

BATCH_INTERVAL = 0.01  # seconds between two transactions; one costs as much as five deliveries


class DeliveryBatcher:
    """Each caller of `store` waits until its deliveries are on disk. What arrives meanwhile is the next batch."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Sequence[Delivery], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def store(self, deliveries: Sequence[Delivery]) -> None:
        """Return when they are stored. Raises HeadwayError when the ledger cannot be written."""
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
            except Exception as error:  # noqa: BLE001  # `store` raises it in each caller
                _finish(batch, error)
            else:
                _finish(batch, None)
            await asyncio.sleep(BATCH_INTERVAL)


def _finish(batch: Sequence[tuple[Sequence[Delivery], asyncio.Future[None]]], error: Exception | None) -> None:
    for _, done in batch:
        if done.done():  # the caller was cancelled
            continue
        if error:
            done.set_exception(error)
        else:
            done.set_result(None)
