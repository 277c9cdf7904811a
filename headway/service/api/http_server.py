"""The HTTP server: uvicorn, with a deadline for the head of a request.

`python -m headway.service.api.http_server HOST PORT` until SIGTERM or SIGINT.
"""

from __future__ import annotations

import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["DeadlineProtocol", "serve"]

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


def serve(host: str, port: int) -> None:
    """Run the API until SIGTERM or SIGINT."""
    uvicorn.run("headway.service.api:app", host=host, port=port, access_log=False, http=DeadlineProtocol, ws="none")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
