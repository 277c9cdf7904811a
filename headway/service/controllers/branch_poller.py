"""What the branch that an app releases names now: for nights, and for pushes whose webhook was lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Delivery, Ledger
from headway.scm.branch_head import head_of
from headway.scm.webhooks import PushEvent

__all__ = ["Poller"]


class Poller:
    """Enters pushes that nobody told of in the inbox, as if a webhook had come."""

    def __init__(self, ledger: Ledger, workspaces: Path, wake: asyncio.Event) -> None:
        self._ledger = ledger
        self._workspaces = workspaces
        self._wake = wake

    async def round(self) -> list[str]:
        """Returns a line for each push that was found, or repository that does not answer."""
        said: list[str] = []
        for app in await asyncio.to_thread(self._ledger.apps.all):
            try:
                found = await asyncio.to_thread(self._look, app)
            except HeadwayError as error:
                found = error.what
            said += [f"{app.name}: {found}"] if found else []
        return said

    def _look(self, app: AppRecord) -> str:
        ref, sha, _ = head_of(app.repo, self._workspaces)
        if self._ledger.deliveries.mentions(app.name, ref, sha):
            return ""
        event = PushEvent(places=(app.place,), ref=ref, before=None, after=sha, by="")
        self._ledger.deliveries.receive([Delivery(app=app.name, delivery=f"poll-{sha}", event=event)])
        self._wake.set()
        return f"{ref} names {sha[:7]}, and no webhook said so"
