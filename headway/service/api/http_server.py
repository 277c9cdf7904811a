"""The HTTP server: uvicorn, with a deadline for the head of a request.

`python -m headway.service.api.http_server SOCKET` until SIGTERM or SIGINT.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from headway.service.api.app import app
from headway.service.door.envoy import CLIENT

__all__ = ["ClientAddress", "DeadlineProtocol", "serve"]

IDLE_DEADLINE = 10.0  # seconds for the head of a request to arrive; `read_body` has a deadline for the body


class DeadlineProtocol(H11Protocol):
    """Closes idle connections, which uvicorn keeps open without limit, so that they cannot use up all sockets.

    Also keeps clients that send garbage or hang up from filling the log with tracebacks.
    """

    _last_cycle: object = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_check = self.loop.call_later(IDLE_DEADLINE, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle_check.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Treat a client that sends invalid HTTP during a response as disconnected."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # a response has started already, or may have no body
            self.transport.close()

    def _close_if_idle(self) -> None:
        """Close the connection when there is no response in progress and was none since the last check."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self._last_cycle:
            self.transport.close()
            return
        self._last_cycle = self.cycle
        self._idle_check = self.loop.call_later(IDLE_DEADLINE, self._close_if_idle)


class ClientAddress:
    """The client's address from the door's header: the door is the only client of a Unix socket for this user."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (address := Headers(scope=scope).get(CLIENT)):
            scope["client"] = (address, 0)
        await self._app(scope, receive, send)


def serve(path: str) -> None:
    """Run the API on a Unix socket that only this user can open, until SIGTERM or SIGINT."""
    Path(path).unlink(missing_ok=True)  # of a service that was killed
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    Path(path).chmod(0o600)
    config = uvicorn.Config(ClientAddress(app), access_log=False, http=DeadlineProtocol, ws="none", proxy_headers=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    serve(sys.argv[1])
