"""Synthetic requests of an analysis: sent at a steady rate, counted by revision as they are answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from headway.domain.errors import TargetError
from headway.domain.measurements import Bucket, RequestCounts
from headway.domain.plan import Probe, Synthetic
from headway.domain.ports import Target
from headway.domain.revision import REVISION_HEADER
from headway.rollout.own_requests import OwnRequests
from headway.system import tls

__all__ = ["DirectRequests", "RoutedRequests", "SyntheticRequests"]

TIMEOUT = 30.0  # seconds for a request
MOST_IN_FLIGHT = 50  # requests: more would show nothing new about a revision that hangs
BOUNDS = [0.001 * 1.25**step for step in range(50)]  # seconds: buckets of the latency histogram, up to a minute
EDGES = [0.0, *BOUNDS, BOUNDS[-1] * 2]


class SyntheticRequests(ABC):
    """Sends the requests in turn until it is cancelled. `counts`: how they were answered, by revision."""

    def __init__(self, synthetic: Synthetic) -> None:
        self.counts: dict[str, RequestCounts] = {}
        self.paused = False
        self._requests = synthetic.requests
        self._rate = synthetic.rate

    @abstractmethod
    async def send(self, number: int) -> None:
        """Send the request with this number, counted from 0, and count its answer."""

    async def run(self) -> None:
        begun, in_flight = time.monotonic(), set[asyncio.Task[None]]()
        try:
            for number in itertools.count():
                if not self.paused and len(in_flight) < MOST_IN_FLIGHT:
                    task = asyncio.create_task(self.send(number))
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)
                await asyncio.sleep(max(0.0, begun + (number + 1) / self._rate - time.monotonic()))
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)

    def _count(self, revision: str, *, failed: bool, latency: tuple[Bucket, ...] = ()) -> None:
        answered = RequestCounts(requests=1, errors=int(failed), latency=latency)
        self.counts[revision] = self.counts.get(revision, RequestCounts()).plus(answered)


class RoutedRequests(SyntheticRequests):
    """Requests to the app's URL: the proxy splits them as it does those of users, and says who answered.

    `own` counts them. `preview` is the revision behind the URL of the preview route.
    """

    def __init__(self, synthetic: Synthetic, target: Target, url: str, own: OwnRequests, preview: str = "") -> None:
        super().__init__(synthetic)
        self._preview = preview
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=target.request_headers,
            timeout=TIMEOUT,
            trust_env=False,
            transport=own.transport(tls.for_url(url), httpx.Limits(max_connections=MOST_IN_FLIGHT)),
        )

    async def run(self) -> None:
        async with self._client:
            await super().run()

    async def send(self, number: int) -> None:
        one, revision, failed = self._requests[number % len(self._requests)], self._preview, True
        request = self._client.build_request(
            one.method, one.path, headers=one.headers, content=one.body, json=one.json_body
        )
        try:
            answer = await self._client.send(request)
            revision, failed = answer.headers.get(REVISION_HEADER, revision), answer.is_server_error
        except httpx.HTTPError:
            pass  # no response; the proxy has counted it for the revision that it chose
        self._count(revision, failed=failed)


class DirectRequests(SyntheticRequests):
    """Requests to the instances of each of these revisions, in turn: for targets that count no requests.

    `refused` is why the last one could not be sent; None when it was.
    """

    def __init__(self, synthetic: Synthetic, target: Target, app: str, revisions: Sequence[str]) -> None:
        super().__init__(synthetic)
        self.refused: TargetError | None = None
        self._target = target
        self._app = app
        self._revisions = revisions
        self._threads = ThreadPoolExecutor(MOST_IN_FLIGHT, thread_name_prefix="synthetic")

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, number: int) -> None:
        revision = self._revisions[number % len(self._revisions)]
        one: Probe = self._requests[number // len(self._revisions) % len(self._requests)]
        begun = time.monotonic()
        try:
            status = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._target.send, self._app, revision, one
            )
        except TargetError as error:
            self.refused = error
            return
        self.refused = None
        step = bisect_right(BOUNDS, time.monotonic() - begun)
        self._count(
            revision,
            failed=status >= httpx.codes.INTERNAL_SERVER_ERROR,
            latency=(Bucket(EDGES[step], EDGES[step + 1], 1),),
        )
