"""HTTP for whoever may be anybody: a connection on which nobody gets to the point is closed.

`python -m headway.service.api.http_server HOST PORT` until SIGTERM or SIGINT.
"""

from __future__ import annotations

import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Patience", "serve"]

HEADERS = 10.0  # seconds for the head of a request to come in; its body has a deadline of its own


class Patience(H11Protocol):
    """uvicorn's HTTP, which would wait for the end of a head for ever: so many of those, and nobody else gets in.

    Nor does anybody fill the log with tracebacks by breaking off in the middle.
    """

    _ended: object = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look_again = self.loop.call_later(HEADERS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_again.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Whoever was being answered when they sent what is no HTTP has hung up, as far as the app goes."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer is on its way already, or may have no body
            self.transport.close()

    def _look(self) -> None:
        """Nothing is being answered, and nothing was since the last look: nobody waits for us."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self.cycle is self._ended:
            self.transport.close()
            return
        self._ended = self.cycle
        self._look_again = self.loop.call_later(HEADERS, self._look)


def serve(host: str, port: int) -> None:
    """Headway's web app, until it is told to stop."""
    uvicorn.run("headway.service.api:app", host=host, port=port, access_log=False, http=Patience, ws="none")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
