"""Poll the released branch of each app, for pushes whose webhook was lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Delivery, Ledger
from headway.scm.branch_head import head_of
from headway.scm.webhooks import PushEvent
from headway.service.controllers.base import Controller

__all__ = ["BranchPoller"]


class BranchPoller(Controller):
    """Stores a delivery for each push that no webhook delivered."""

    name = "poll"
    interval = 300.0

    def __init__(self, ledger: Ledger, workspaces: Path, deliveries_stored: asyncio.Event) -> None:
        super().__init__()
        self._ledger = ledger
        self._workspaces = workspaces
        self._deliveries_stored = deliveries_stored

    async def reconcile(self) -> list[str]:
        """Return a line for each push that was found and each repository that does not answer."""
        lines: list[str] = []
        for app in await asyncio.to_thread(self._ledger.apps.all):
            try:
                found = await asyncio.to_thread(self._missed_push, app)
            except HeadwayError as error:
                found = error.what
            lines += [f"{app.name}: {found}"] if found else []
        return lines

    def _missed_push(self, app: AppRecord) -> str | None:
        ref, sha, _ = head_of(app.repo, self._workspaces, app.branch)
        deliveries = self._ledger.deliveries
        if deliveries.mentions(app.name, ref, sha):
            return None
        if not deliveries.knows(app.name, ref):
            deliveries.record_baseline(app, ref, sha)
            return f"{ref} is at {sha[:7]}, which is not released: Headway has not looked at this branch before"
        event = PushEvent(places=(app.place,), ref=ref, before=None, after=sha, by="")
        deliveries.receive([Delivery(app=app.name, delivery=f"poll-{sha}", event=event)])
        self._deliveries_stored.set()
        return f"{ref} is at {sha[:7]}, and no webhook delivered it"
