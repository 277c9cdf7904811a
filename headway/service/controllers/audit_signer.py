"""Sign the newest event of the audit trail."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headway.ledger import Ledger
from headway.ledger.audit_head import sign_head
from headway.service.controllers.base import Controller

__all__ = ["AuditSigner"]


class AuditSigner(Controller):
    """Writes the signed head into HEADWAY_HOME. Events after it could be removed unnoticed, until the next time."""

    name = "audit"
    interval = 10.0

    def __init__(self, ledger: Ledger, home: Path) -> None:
        super().__init__()
        self._ledger = ledger
        self._home = home

    async def reconcile(self) -> list[str]:
        await asyncio.to_thread(sign_head, self._ledger.audit, self._home)
        return []
