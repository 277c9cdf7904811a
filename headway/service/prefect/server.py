"""Prefect's server: SQLite transactions that wait for each other, and an exponential Retry-After on 503.

Prefect begins its SQLite transactions as DEFERRED. One that reads and then writes fails at once with "database is
locked" when another has written in between, whatever the busy timeout: its snapshot is old. A request is answered with
503 then, and a service logs an error and has done nothing. An IMMEDIATE transaction waits for its turn instead.

A 503 may still come from elsewhere. The server has done nothing then, and a retry a few milliseconds later may succeed;
but Prefect's client waits 2 s without a Retry-After, which would delay every rollout. The client tries six times, so
the pause grows when many requests get a 503 at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.api.server import create_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["app"]

SOON, LATE = 0.05, 2.0  # seconds; the client adds jitter of its own
CROWD = 1.0  # seconds in which other 503s count


class ImmediateTransactions(AioSqliteConfiguration):
    """Every transaction takes the write lock when it begins."""

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,  # noqa: ARG002  # Prefect asks for the lock in some places
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


class AskAgainSoon:
    """Adds Retry-After to every 503, and doubles it for each other 503 in the last `CROWD` seconds."""

    def __init__(self, server: ASGIApp) -> None:
        self._server = server
        self._rejected_at: deque[float] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                MutableHeaders(scope=message).setdefault("Retry-After", f"{self._pause():g}")
            await send(message)

        await self._server(scope, receive, answer)

    def _pause(self) -> float:
        now = time.monotonic()
        while self._rejected_at and self._rejected_at[0] < now - CROWD:
            self._rejected_at.popleft()
        self._rejected_at.append(now)
        return min(LATE, SOON * 2.0 ** min(len(self._rejected_at) - 1, 10))


def app() -> ASGIApp:
    """The app for uvicorn's --factory. `final`: no routes are added later."""
    database = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(database).name == "sqlite":
        set_database_config(ImmediateTransactions(connection_url=database))
    return AskAgainSoon(create_app(final=True))
