"""Cache of the registered apps and their webhook secrets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from headway.domain.errors import HeadwayError
from headway.ledger import AppRecord, Ledger
from headway.service.controllers.base import Controller

__all__ = ["WebhookSecrets"]

REFRESH_INTERVAL = 60.0  # seconds after which a changed secret is seen at the latest
REFRESH_LIMIT = 1.0  # seconds between two reads of the secrets of the same apps, whatever is delivered


class WebhookSecrets(Controller):
    """Serves every delivery from memory: none waits for the ledger or the secret store."""

    name = "webhook_secrets"
    interval = REFRESH_INTERVAL

    def __init__(self, ledger: Ledger, load_secret: Callable[[str, str], Awaitable[str]]) -> None:
        super().__init__()
        self._ledger = ledger
        self._load_secret = load_secret
        self._secrets: list[tuple[AppRecord, str]] = []
        self._apps: list[AppRecord] = []
        self._refreshed_at = 0.0
        self._refreshing = asyncio.Lock()
        self.refreshes = 0
        self.missing: list[str] = []
        """Why an app's deliveries are refused, a line for each app without a secret."""

    def of(self, host: str) -> list[tuple[AppRecord, str]]:
        """The apps of a kind of git host that have a secret, each with its secret."""
        return [(app, secret) for app, secret in self._secrets if app.host == host]

    async def reconcile(self) -> list[str]:
        """Read all secrets. Return a line for each app without one."""
        async with self._refreshing:
            secrets, missing = [], []
            apps = await asyncio.to_thread(self._ledger.apps.all)
            for app in apps:
                try:
                    secret = await self._load_secret(app.secret, f"app {app.name}")
                except HeadwayError as error:
                    missing.append(error.what)
                    continue
                if secret:
                    secrets.append((app, secret))
                else:
                    missing.append(f"app {app.name}: the secret {app.secret} is empty")
            self._secrets, self._apps, self.missing = secrets, apps, missing
            self._refreshed_at = time.monotonic()
            self.refreshes += 1
        return missing

    async def refreshed_since(self, refreshes: int) -> bool:
        """Read the secrets again if that may help a delivery that no known secret has signed.

        `refreshes` is the value of that attribute when the delivery was checked. Returns whether the secrets have been
        read since, so that checking again makes sense.
        """
        if self.refreshes != refreshes:
            return True
        apps = await asyncio.to_thread(self._ledger.apps.all)
        if apps == self._apps and time.monotonic() - self._refreshed_at < REFRESH_LIMIT:
            return self.refreshes != refreshes
        await self.reconcile()
        return True
