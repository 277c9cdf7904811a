"""Headway's own requests to the public address of an app, which are not requests of its users."""

from __future__ import annotations

import asyncio
import ssl

import httpx

from headway.domain.measurements import RequestCounts

__all__ = ["LATE", "OwnRequests"]

LATE = 1.0  # seconds for the answer of a request that is given up


class OwnRequests:
    """Counts smoke tests, synthetic requests and rehearsals, so that `users` can leave them out."""

    def __init__(self) -> None:
        self._counts = RequestCounts()

    def add(self, requests: int, *, errors: int = 0, unanswered: int = 0) -> None:
        """Count requests that have ended; `errors` and `unanswered` as in RequestCounts."""
        self._counts = self._counts.plus(RequestCounts(requests=requests, errors=errors, unanswered=unanswered))

    def clear(self) -> None:
        """Forget requests from before the first reading."""
        self._counts = RequestCounts()

    def users(self, seen: RequestCounts) -> RequestCounts:
        """What the proxy has seen since the last call, without our own requests.

        A response that the proxy has not counted yet is left out the next time. The latency is that of all requests,
        and unknown when none was a user's.
        """
        own = self._counts
        ours = min(own.requests, seen.requests)
        self._counts = RequestCounts(requests=own.requests - ours)
        requests = seen.requests - ours
        return RequestCounts(
            requests=requests,
            errors=min(requests, max(0, seen.errors - own.errors)),
            unanswered=max(0, seen.unanswered - own.unanswered),
            latency=seen.latency if requests else (),
        )

    def transport(self, verify: ssl.SSLContext | bool, limits: httpx.Limits | None = None) -> httpx.AsyncBaseTransport:
        """A transport for httpx.AsyncClient whose requests are counted."""
        return _Counted(self, httpx.AsyncHTTPTransport(verify=verify, limits=limits or httpx.Limits()))


class _Counted(httpx.AsyncBaseTransport):
    def __init__(self, own: OwnRequests, inner: httpx.AsyncHTTPTransport) -> None:
        self._own = own
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answering = asyncio.ensure_future(self._inner.handle_async_request(request))
        try:
            response = await asyncio.shield(answering)
        except asyncio.CancelledError:
            await self._count_late(answering)
            raise
        except httpx.ConnectError:
            raise  # the proxy has not seen it
        except BaseException:
            self._own.add(0, unanswered=1)
            raise
        self._own.add(1, errors=int(response.is_server_error))
        return response

    async def _count_late(self, answering: asyncio.Future[httpx.Response]) -> None:
        """Count a request that is given up. How the proxy counts it, only its answer says: that may be on its way."""
        await asyncio.wait({answering}, timeout=LATE)
        if not answering.done():
            answering.cancel()
            await asyncio.wait({answering})
        if answering.cancelled() or answering.exception():
            self._own.add(0, unanswered=1)
            return
        response = answering.result()
        self._own.add(1, errors=int(response.is_server_error))
        await response.aclose()

    async def aclose(self) -> None:
        await self._inner.aclose()
