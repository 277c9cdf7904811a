"""Monitors a revision during an analysis: readings of the target and of metric sources, synthetic requests."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import httpx

from headway.domain.errors import HeadwayError
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, MetricLimit, Synthetic
from headway.domain.ports import MetricSource, Target
from headway.domain.revision import REVISION_HEADER
from headway.rollout.request_counter import RequestCounter
from headway.system import tls

__all__ = ["Monitor", "monitoring"]

QUERY_INTERVAL = 5.0  # seconds between two queries of a metric source
TIMEOUT = 30.0  # seconds for a synthetic request
MOST_IN_FLIGHT = 50  # synthetic requests: more would show nothing new about a revision that hangs


class Monitor:
    """The readings of one analysis. `monitoring` makes one and runs its requests and queries."""

    def __init__(
        self, app: str, step: Analyze, target: Target, meter: RequestCounter, sources: Mapping[str, MetricSource]
    ) -> None:
        self._app = app
        self._step = step
        self._target = target
        self._meter = meter
        self._sources = sources
        self._metrics: dict[str, float | str | None] = {limit.name: None for limit in step.metrics}
        self._synthetic: dict[str, RequestCounts] = {}
        self._last: Measurements | None = None
        self._busy = False  # users send more than the synthetic rate

    async def read(self) -> Measurements:
        """The present reading. Raises TargetError when the target cannot be measured."""
        counted = await asyncio.to_thread(self._meter.read)
        seen = await asyncio.to_thread(self._target.observe, self._app)
        now = counted.model_copy(
            update={
                "instances": seen.instances.get(self._step.revision, ()),
                "metrics": dict(self._metrics),
                "synthetic": dict(self._synthetic),
            }
        )
        if self._step.synthetic and self._last and not self._step.preview:
            self._busy = _real_rate(self._last, now) >= self._step.synthetic.rate
        self._last = now
        return now

    async def query(self, limit: MetricLimit) -> None:
        """Query a metric source repeatedly; its value, or why there is none, is in the next reading."""
        while True:
            try:
                answer = await asyncio.to_thread(self._sources[limit.source].query, limit.query)
                # Infinity cannot be compared with a limit, and JSON does not have it.
                self._metrics[limit.name] = None if answer is None or not math.isfinite(answer) else float(answer)
            except HeadwayError as error:
                self._metrics[limit.name] = error.what
            except Exception as error:  # noqa: BLE001  # its last value must not stay for ever
                self._metrics[limit.name] = f"a bug in {limit.source}: {type(error).__name__}: {error}"
            await asyncio.sleep(QUERY_INTERVAL)

    async def send_requests(self, url: str, synthetic: Synthetic) -> None:
        """Send the requests in turn, at their rate; the proxy splits them as it does those of users."""
        begun, in_flight = time.monotonic(), set[asyncio.Task[None]]()
        limits = httpx.Limits(max_connections=MOST_IN_FLIGHT)
        async with httpx.AsyncClient(
            base_url=url,
            headers=self._target.request_headers,
            timeout=TIMEOUT,
            limits=limits,
            trust_env=False,
            verify=tls.for_url(url),
        ) as client:
            try:
                for number, probe in enumerate(itertools.cycle(synthetic.requests), 1):
                    if not self._busy and len(in_flight) < MOST_IN_FLIGHT:
                        request = client.build_request(
                            probe.method, probe.path, headers=probe.headers, content=probe.body, json=probe.json_body
                        )
                        task = asyncio.create_task(self._send(client, request))
                        in_flight.add(task)
                        task.add_done_callback(in_flight.discard)
                    await asyncio.sleep(max(0.0, begun + number / synthetic.rate - time.monotonic()))
            finally:
                for task in in_flight:
                    task.cancel()
                await asyncio.gather(*in_flight, return_exceptions=True)

    async def _send(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        revision, failed = self._step.revision if self._step.preview else "", True
        try:
            answer = await client.send(request)
            revision, failed = answer.headers.get(REVISION_HEADER, revision), answer.is_server_error
        except httpx.HTTPError:
            pass  # no response; the proxy has counted it for the revision that it chose
        known = self._synthetic.get(revision, RequestCounts())
        self._synthetic[revision] = RequestCounts(requests=known.requests + 1, errors=known.errors + failed)


@asynccontextmanager
async def monitoring(
    app: str, step: Analyze, target: Target, meter: RequestCounter, sources: Mapping[str, MetricSource]
) -> AsyncIterator[Monitor]:
    """A monitor whose synthetic requests and metric queries run until the block ends."""
    monitor = Monitor(app, step, target, meter, sources)
    tasks = [asyncio.create_task(monitor.query(limit)) for limit in step.metrics]
    if step.synthetic:
        seen = await asyncio.to_thread(target.observe, app)
        url = seen.preview_url if step.preview else seen.url
        if url:
            tasks.append(asyncio.create_task(monitor.send_requests(url, step.synthetic)))
    try:
        yield monitor
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _real_rate(last: Measurements, now: Measurements) -> float:
    """Requests a second that are not synthetic."""
    seconds = (now.at - last.at).total_seconds()
    if not now.edge or not last.edge or seconds <= 0:
        return 0.0
    ours = _all(now.synthetic.values()) - _all(last.synthetic.values())
    return (now.edge.since(last.edge).requests - ours) / seconds


def _all(counts: Iterable[RequestCounts]) -> int:
    return sum(each.requests for each in counts)
