"""Whose deliveries are believed: the apps of a kind of host, each with the secret that it signs with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Ledger

__all__ = ["Keys"]

FRESH = 60.0  # seconds; then whoever was registered or got another secret meanwhile is known in any case
AT_MOST = 1.0  # seconds between two looks at the secrets of the same apps, whatever comes in

log = logging.getLogger("uvicorn.error")


class Keys:
    """What the ledger and the secrets said last: no delivery waits for them."""

    def __init__(self, ledger: Ledger, load_secret: Callable[[str, str], Awaitable[str]]) -> None:
        self._ledger = ledger
        self._load_secret = load_secret
        self._known: list[tuple[AppRecord, str]] = []
        self._apps: list[AppRecord] = []
        self._looked = 0.0
        self._looking = asyncio.Lock()
        self.looks = 0
        self.missing: list[str] = []
        """Why an app's deliveries are refused, a line for each."""

    def of(self, host: str) -> list[tuple[AppRecord, str]]:
        return [(app, secret) for app, secret in self._known if app.host == host]

    async def look(self) -> list[str]:
        """Read them all again; returns a line for each app without a secret."""
        async with self._looking:
            known, missing = [], []
            apps = await asyncio.to_thread(self._ledger.apps.all)
            for app in apps:
                try:
                    secret = await self._load_secret(app.secret, f"app {app.name}")
                except HeadwayError as error:
                    missing.append(error.what)
                    continue
                if secret:
                    known.append((app, secret))
                else:
                    missing.append(f"app {app.name}: the secret {app.secret} is empty")
            self._known, self._apps, self.missing = known, apps, missing
            self._looked = time.monotonic()
            self.looks += 1
        return missing

    async def look_again(self, looks: int) -> bool:
        """For a delivery that nobody seemed to have signed after so many looks: whether there may be a new app, or a
        new secret, now.
        """
        if self.looks != looks:
            return True
        apps = await asyncio.to_thread(self._ledger.apps.all)
        if apps == self._apps and time.monotonic() - self._looked < AT_MOST:
            return self.looks != looks
        await self.look()
        return True
