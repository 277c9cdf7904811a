"""Monitors a revision during an analysis: readings of the target and of metric sources, synthetic requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from headway.domain.errors import HeadwayError
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, MetricLimit
from headway.domain.ports import MetricSource
from headway.domain.traffic import Capability
from headway.rollout.own_requests import OwnRequests
from headway.rollout.request_counter import RequestCounter
from headway.rollout.synthetic_requests import DirectRequests, RoutedRequests, SyntheticRequests

__all__ = ["Monitor", "monitoring"]

QUERY_INTERVAL = 5.0  # seconds between two queries of a metric source


class Monitor:
    """The readings of one analysis. `monitoring` makes one and runs its requests and queries."""

    def __init__(
        self,
        step: Analyze,
        meter: RequestCounter,
        sources: Mapping[str, MetricSource],
        requests: SyntheticRequests | None,
    ) -> None:
        self._step = step
        self._meter = meter
        self._sources = sources
        self._requests = requests
        self._metrics: dict[str, float | str | None] = {limit.name: None for limit in step.metrics}
        self._last: Measurements | None = None

    async def read(self) -> Measurements:
        """The present reading. Raises TargetError when the target cannot be measured, or no request be sent."""
        counted = await asyncio.to_thread(self._meter.read)
        seen = await asyncio.to_thread(self._meter.target.observe, self._meter.app)
        now = counted.model_copy(
            update={
                "instances": seen.instances.get(self._step.revision, ()),
                "metrics": dict(self._metrics),
                "synthetic": dict(self._requests.counts) if self._requests else {},
            }
        )
        if isinstance(self._requests, DirectRequests):
            if self._requests.refused:
                raise self._requests.refused
            return now.model_copy(update={"counts": now.synthetic})  # nothing else counts
        if self._step.synthetic and self._requests and self._last and not self._step.preview:
            self._requests.paused = _real_rate(self._last, now) >= self._step.synthetic.rate
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


@asynccontextmanager
async def monitoring(
    step: Analyze, meter: RequestCounter, sources: Mapping[str, MetricSource]
) -> AsyncIterator[Monitor]:
    """A monitor whose synthetic requests and metric queries run until the block ends."""
    requests = await _requests(step, meter)
    monitor = Monitor(step, meter, sources, requests)
    tasks = [asyncio.create_task(monitor.query(limit)) for limit in step.metrics]
    if requests:
        tasks.append(asyncio.create_task(requests.run()))
    try:
        yield monitor
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _requests(step: Analyze, meter: RequestCounter) -> SyntheticRequests | None:
    target, app = meter.target, meter.app
    if step.synthetic is None:
        return None
    if Capability.METRICS not in target.capabilities and target.sends_requests:
        revisions = [step.revision, *([step.against.stable] if step.against else [])]
        return DirectRequests(step.synthetic, target, app, revisions)
    seen = await asyncio.to_thread(target.observe, app)
    url = seen.preview_url if step.preview else seen.url
    if not url:
        return None
    if step.preview:  # its requests are counted apart from those of users
        return RoutedRequests(step.synthetic, target, url, OwnRequests(), step.revision)
    return RoutedRequests(step.synthetic, target, url, meter.own)


def _real_rate(last: Measurements, now: Measurements) -> float:
    """Requests a second that are not synthetic."""
    seconds = (now.at - last.at).total_seconds()
    if not now.edge or not last.edge or seconds <= 0:
        return 0.0
    ours = _all(now.synthetic.values()) - _all(last.synthetic.values())
    return (now.edge.since(last.edge).requests - ours) / seconds


def _all(counts: Iterable[RequestCounts]) -> int:
    return sum(each.requests for each in counts)
