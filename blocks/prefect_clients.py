"""Prefect's HTTP clients, made to wait for a server that is busy or restarts.

As they are, they make six attempts, with pauses that double without a limit, and do not repeat a 500 or a 504: a lock
on the server's database for a few seconds fails a flow run, and a proxy that fails every other call delays it for
minutes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

from headway.system.retry_policy import retry_after

__all__ = ["PATIENCE", "install"]

PATIENCE = 300.0  # seconds from the first attempt of a request to the last one
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds
LONGEST_RETRY_AFTER = 60.0  # seconds
BUSY = frozenset({408, 429, 500, 502, 503, 504})


class _Attempts:
    """Counts the attempts of one request."""

    def __init__(self, *, connected: bool) -> None:
        self._end = time.monotonic() + PATIENCE
        self._pause = FIRST_PAUSE
        self._number = 1
        # A wrong address is reported at once. A run or a worker was started by a server that was there.
        self._connected = connected or "PREFECT__FLOW_RUN_ID" in os.environ or "PREFECT__WORKER_NAME" in os.environ

    def result(self, response: httpx.Response) -> httpx.Response:
        """The final response.

        A run's form is stored under a key. When the answer to that was lost, the second attempt is refused as a
        conflict with the first one: it is stored.
        """
        stored = self._number > 1 and response.status_code == httpx.codes.CONFLICT
        if stored and response.request.url.path.rstrip("/").endswith("/input"):
            response.status_code = httpx.codes.CREATED
        return response

    def pause_after(self, failure: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next attempt; None when the failure is final."""
        asked = None
        if isinstance(failure, httpx.Response):
            if failure.status_code not in BUSY:
                return None
            asked = retry_after(failure.headers)
        elif isinstance(failure, httpx.UnsupportedProtocol) or (
            isinstance(failure, httpx.ConnectError) and not self._connected
        ):
            return None
        pause = min(asked or 0.0, LONGEST_RETRY_AFTER) + self._pause * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._number += 1
        return pause if time.monotonic() + pause < self._end else None


def install() -> None:
    """Change the clients of this process. Calling it again changes nothing."""
    if not hasattr(PrefectHttpxAsyncClient, "waits_for_busy_server"):
        _install_async()
        _install_sync()


def _install_async() -> None:
    original = PrefectHttpxAsyncClient._send_with_retry  # noqa: SLF001  # no setting limits the pauses

    async def send_with_retry(
        self: Any, request: httpx.Request, send: Callable[..., Awaitable[httpx.Response]], *rest: Any, **more: Any
    ) -> httpx.Response:
        attempts = _Attempts(connected=self._has_connected)

        async def patient(request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
            while True:
                try:
                    response = await send(request, *args, **kwargs)
                except httpx.TransportError as error:
                    pause = attempts.pause_after(error)
                    if pause is None:
                        raise
                else:
                    pause = attempts.pause_after(response)
                    if pause is None:
                        return attempts.result(response)
                    await response.aclose()
                await anyio.sleep(pause)

        # The original handles CSRF tokens. It must not repeat what was repeated long enough.
        more |= {"retry_codes": set(), "retry_exceptions": ()}
        response: httpx.Response = await original(self, request, patient, *rest, **more)
        return response

    PrefectHttpxAsyncClient._send_with_retry = send_with_retry  # type: ignore[method-assign]  # noqa: SLF001
    PrefectHttpxAsyncClient.waits_for_busy_server = True  # type: ignore[attr-defined]


def _install_sync() -> None:
    original = PrefectHttpxSyncClient._send_with_retry  # noqa: SLF001  # see above

    def send_with_retry(
        self: Any, request: httpx.Request, send: Callable[..., httpx.Response], *rest: Any, **more: Any
    ) -> httpx.Response:
        attempts = _Attempts(connected=self._has_connected)

        def patient(request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
            while True:
                try:
                    response = send(request, *args, **kwargs)
                except httpx.TransportError as error:
                    pause = attempts.pause_after(error)
                    if pause is None:
                        raise
                else:
                    pause = attempts.pause_after(response)
                    if pause is None:
                        return attempts.result(response)
                    response.close()
                time.sleep(pause)

        more |= {"retry_codes": set(), "retry_exceptions": ()}
        response: httpx.Response = original(self, request, patient, *rest, **more)
        return response

    PrefectHttpxSyncClient._send_with_retry = send_with_retry  # type: ignore[method-assign]  # noqa: SLF001
