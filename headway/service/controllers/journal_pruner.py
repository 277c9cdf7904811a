"""Remove old steps and readings from the ledger."""

from __future__ import annotations

import asyncio

from headway.ledger import Ledger
from headway.service.controllers.base import Controller
from headway.system.retention import keep_period

__all__ = ["JournalPruner"]


class JournalPruner(Controller):
    """Calls `JournalRetention.remove`. Prefect's server removes its own runs, logs and artifacts."""

    name = "prune"
    interval = 3600.0

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    async def reconcile(self) -> list[str]:
        removed = await asyncio.to_thread(self._ledger.journal.remove, keep_period())
        return [f"removed {rows} old {table} from the ledger" for table, rows in removed.items() if rows]
