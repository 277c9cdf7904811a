"""Prefect's server, telling its clients when to ask again.

On SQLite two writers that meet make it answer 503 at once. Nothing was done then, and a few milliseconds later it has
time; but Prefect's client waits 2 s when it is not told otherwise, which every rollout would pay.
"""

from __future__ import annotations

from prefect.server.api.server import create_app
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["app"]

SOON = "0.05"  # seconds; the client adds jitter of its own


class AskAgainSoon:
    """Adds Retry-After to every 503."""

    def __init__(self, server: ASGIApp) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                MutableHeaders(scope=message).setdefault("Retry-After", SOON)
            await send(message)

        await self._server(scope, receive, answer)


def app() -> ASGIApp:
    """What uvicorn's --factory calls. `final`: nothing mounts anything after this."""
    return AskAgainSoon(create_app(final=True))
