"""Start live instances again that a reboot or a killed supervisor has ended, and see that live apps answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headway.domain.errors import TargetError
from headway.domain.ports import Target
from headway.ledger import Ledger
from headway.service.controllers.base import Controller, collect_error

__all__ = ["Reviver"]


class Reviver(Controller):
    """Calls `revive` and `unreachable` of the target of each app and environment with a live revision."""

    name = "revive"
    interval = 10.0

    def __init__(self, ledger: Ledger, load_target: Callable[[str], Awaitable[Target]]) -> None:
        super().__init__()
        self._ledger = ledger
        self._load_target = load_target

    async def reconcile(self) -> list[str]:
        """Raises TargetError, which names every app that cannot be started again or does not answer."""
        lines: list[str] = []
        failed: list[str] = []
        targets: dict[str, Target] = {}
        for app, environment, spec in await asyncio.to_thread(self._ledger.revisions.live):
            with collect_error(f"{app} {environment}", failed):
                target = targets.get(spec.target) or await self._load_target(spec.target)
                targets[spec.target] = target
                if await asyncio.to_thread(target.revive, app):
                    lines.append(f"{app} {environment}: was not running on {spec.target}: started again")
                if await asyncio.to_thread(self._changes, app, environment):
                    continue  # its request would be counted as one of a user during the rollout
                if refusal := await asyncio.to_thread(target.unreachable, app):
                    failed.append(f"{app} {environment}: {refusal.what}")
        if failed:
            raise TargetError("; ".join(lines + failed), "see what the app says: headway logs APP ENV")
        return lines

    def _changes(self, app: str, environment: str) -> bool:
        """Whether a run holds the environment's lock."""
        holder = self._ledger.locks.holder(app, environment)
        return holder is not None and not holder.expired
