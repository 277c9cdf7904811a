"""Answer a worker's poll for scheduled runs without the Prefect server while nothing can have been scheduled."""

from __future__ import annotations

import re
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["QuietPolls"]

POLL = re.compile(r"/api/work_pools/[^/]+/get_scheduled_flow_runs")
SCHEDULES = re.compile(r"/api/(flow_runs/|.*/(create_flow_run|set_state|resume))")
"""Requests after which a run may be scheduled."""
INTERVAL = 2.0  # seconds after which the server is asked in any case: its own services schedule runs too


class QuietPolls:
    """Workers of Headway poll four times a second, so that a release starts at once.

    For each poll the server reads the work pool and its queues, and starts two background tasks that mark the queue and
    its deployments as ready. Most of what an idle server does is that.
    """

    def __init__(self, server: ASGIApp) -> None:
        self._server = server
        self._scheduled = 0  # requests that may have scheduled a run
        self._answered: dict[str, tuple[int, float]] = {}
        """Path of a poll -> `_scheduled` and the time when the server last answered it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._server(scope, receive, send)
        elif POLL.fullmatch(path):
            await self._poll(path, scope, receive, send)
        else:
            try:
                await self._server(scope, receive, send)
            finally:
                self._scheduled += bool(SCHEDULES.fullmatch(path))

    async def _poll(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        scheduled, answered_at = self._answered.get(path, (-1, 0.0))
        if scheduled == self._scheduled and time.monotonic() < answered_at + INTERVAL:
            await JSONResponse([])(scope, receive, send)
            return
        asked = (self._scheduled, time.monotonic())

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._answered[path] = asked
            await send(message)

        await self._server(scope, receive, note)
