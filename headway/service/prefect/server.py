"""Prefect's server: SQLite transactions and requests that wait for a busy database; fewer polls and stored events.

Prefect begins its SQLite transactions as DEFERRED. One that reads and then writes fails at once with "database is
locked" when another has written in between, whatever the busy timeout: its snapshot is old. A request is answered with
503 then, and a service logs an error and has done nothing. An IMMEDIATE transaction waits for its turn instead.

A 503 may still come from elsewhere, such as a lock that another process holds. The server has done nothing then: it
handles the request again before anybody sees the 503. So people in Prefect's UI, programs and runs of other versions
wait too. A 503 that is left after `PATIENCE` has a Retry-After, which grows when many requests get a 503 at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.api.server import create_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.services import event_persister
from prefect.server.events.storage.database import write_events
from prefect.server.utilities.database import get_dialect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.service.prefect.door_requests import DoorRequests
from headway.service.prefect.quiet_polls import QuietPolls

__all__ = ["app"]

SOON, LATE = 0.05, 2.0  # seconds; the client adds jitter of its own
CROWD = 1.0  # seconds in which other 503s count
PATIENCE = 20.0  # seconds; clients wait at least 30 for an answer
BODY_LIMIT = 1024 * 1024  # bytes; a larger request is not kept for another attempt


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


async def store_events(session: AsyncSession, events: list[ReceivedEvent]) -> None:
    """Store events, but for those of task runs. Triggers, the event stream and the task runs themselves still get them.

    They are most of the events of a release, and nothing reads them: what they say is in the task runs.
    """
    await write_events(session, [event for event in events if not event.event.startswith("prefect.task-run.")])


class RetryBusy:
    """Handles a request again when its answer is 503, for `PATIENCE` seconds. Then the 503 has a Retry-After.

    Both pauses double for each other 503 in the last `CROWD` seconds.
    """

    def __init__(self, server: ASGIApp) -> None:
        self._server = server
        self._rejected_at: deque[float] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._server(scope, receive, send)
            return
        request = _Request(receive)
        end = time.monotonic() + PATIENCE
        while pause := await self._handle(scope, request, send, last=time.monotonic() >= end):
            await asyncio.sleep(pause)
            request.rewind()

    async def _handle(self, scope: Scope, request: _Request, send: Send, *, last: bool) -> float:
        """Send the answer, unless it is 503 and there can be another attempt: then return the pause before it."""
        pause = 0.0

        async def answer(message: Message) -> None:
            nonlocal pause
            if message["type"] == "http.response.start" and message["status"] == 503:
                retry_after = self._pause()
                MutableHeaders(scope=message).setdefault("Retry-After", f"{retry_after:g}")
                pause = retry_after if request.repeatable and not last else 0.0
            if not pause:
                await send(message)

        await self._server(dict(scope), request.receive, answer)
        return pause

    def _pause(self) -> float:
        now = time.monotonic()
        while self._rejected_at and self._rejected_at[0] < now - CROWD:
            self._rejected_at.popleft()
        self._rejected_at.append(now)
        return min(LATE, SOON * 2.0 ** min(len(self._rejected_at) - 1, 10))


class _Request:
    """The messages of a request, kept so that it can be handled again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._next = 0
        self._size = 0
        self.repeatable = True

    async def receive(self) -> Message:
        if self._next == len(self._kept):
            message = await self._receive()
            self._kept.append(message)
            self._size += len(message.get("body", b""))
            # A client that has disconnected waits for no answer.
            self.repeatable = message["type"] == "http.request" and self._size <= BODY_LIMIT
        self._next += 1
        return self._kept[self._next - 1]

    def rewind(self) -> None:
        self._next = 0


def app() -> ASGIApp:
    """The app for uvicorn's --factory. `final`: no routes are added later."""
    vars(event_persister)["write_events"] = store_events  # Prefect has no setting for it
    database = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if get_dialect(database).name == "sqlite":
        set_database_config(ImmediateTransactions(connection_url=database))
    return DoorRequests(RetryBusy(QuietPolls(create_app(final=True))))
