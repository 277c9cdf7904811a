"""Prefect's server with an exponential Retry-After on 503.

On SQLite the server answers 503 when two requests write at the same time. It has done nothing then, and a retry a few
milliseconds later succeeds; but Prefect's client waits 2 s without a Retry-After, which would delay every rollout. The
client tries six times, so the pause grows when many requests get a 503 at once.
"""

from __future__ import annotations

import time
from collections import deque

from prefect.server.api.server import create_app
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["app"]

SOON, LATE = 0.05, 2.0  # seconds; the client adds jitter of its own
CROWD = 1.0  # seconds in which other 503s count


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
    return AskAgainSoon(create_app(final=True))
