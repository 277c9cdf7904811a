"""Prefect's server, telling its clients when to ask again.

On SQLite two writers that meet make it answer 503 at once. Nothing was done then, and a few milliseconds later it has
time; but Prefect's client waits 2 s when it is not told otherwise, which every rollout would pay. It asks six times:
where many meet, each is told to stay away for longer, so that six times are enough.
"""

from __future__ import annotations

import time
from collections import deque

from prefect.server.api.server import create_app
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["app"]

SOON, LATE = 0.05, 2.0  # seconds; the client adds jitter of its own
CROWD = 1.0  # seconds in which the others that were sent away count


class AskAgainSoon:
    """Adds Retry-After to every 503: twice as long for each other one of the last seconds."""

    def __init__(self, server: ASGIApp) -> None:
        self._server = server
        self._sent_away: deque[float] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                MutableHeaders(scope=message).setdefault("Retry-After", f"{self._pause():g}")
            await send(message)

        await self._server(scope, receive, answer)

    def _pause(self) -> float:
        now = time.monotonic()
        while self._sent_away and self._sent_away[0] < now - CROWD:
            self._sent_away.popleft()
        self._sent_away.append(now)
        return min(LATE, SOON * 2.0 ** min(len(self._sent_away) - 1, 10))


def app() -> ASGIApp:
    """What uvicorn's --factory calls. `final`: nothing mounts anything after this."""
    return AskAgainSoon(create_app(final=True))
