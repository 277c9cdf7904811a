"""Readings during an analysis: synthetic requests on real sockets, values of metric sources."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from headway.domain.errors import MetricsUnavailable
from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.plan import Analyze, MetricLimit, Probe, Synthetic
from headway.domain.ports import MetricSource
from headway.domain.traffic import Observation, Traffic
from headway.rollout.monitor import Monitor, monitoring
from headway.rollout.request_counter import RequestCounter
from headway.testing import FakeTarget

LIMIT = MetricLimit(name="orders", source="fake/one", query="orders", op=">=", limit=5, lasting=1)
PROBES = Synthetic(requests=(Probe(method="GET", path="/a"), Probe(method="POST", path="/b", body="x")), rate=100)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500 if self.path == "/b" else 200)
        self.send_header("x-headway-revision", "new")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _answer  # noqa: N815  # names of http.server

    def log_message(self, *_: object) -> None:
        pass


class Proxy(FakeTarget):
    """A fake target with a real address; `users`: user requests in each reading."""

    def __init__(self, url: str, users: int = 0) -> None:
        super().__init__()
        self.url = url
        self.users = users
        self._seen = 0

    def observe(self, app: str) -> Observation:
        return Observation(app=app, url=self.url, preview_url=f"{self.url}/preview", traffic=Traffic(), instances={})

    def measure(self, app: str) -> Measurements:
        self._seen += self.users
        return super().measure(app).model_copy(update={"edge": RequestCounts(requests=self._seen)})


class Source(MetricSource):
    def __init__(self, *answers: float | MetricsUnavailable | None) -> None:
        self.answers = list(answers)

    def query(self, expression: str) -> float | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, MetricsUnavailable):
            raise answer
        return answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def watched(
    app: str, step: Analyze, target: FakeTarget, sources: dict[str, MetricSource]
) -> AbstractAsyncContextManager[Monitor]:
    return monitoring(step, RequestCounter(target, app), sources)


def step(*, preview: bool = False, synthetic: Synthetic | None = PROBES, metrics: bool = False) -> Analyze:
    return Analyze(
        revision="new",
        window=1,
        conditions=(),
        min_requests=1,
        metrics=(LIMIT,) if metrics else (),
        synthetic=synthetic,
        preview=preview,
    )


async def until(what: Callable[[], object]) -> None:
    for _ in range(500):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen")


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


async def test_synthetic_requests_are_sent_in_turn_and_counted_as_they_were_answered(server: Server) -> None:
    async with watched("shop", step(), Proxy(url(server)), {}) as watch:
        await until(lambda: len(server.asked) >= 20)
        await asyncio.sleep(0.1)
        reading = await watch.read()
    assert set(server.asked) == {"GET /a", "POST /b"}
    counted = reading.synthetic["new"]
    assert counted.requests >= 19
    assert abs(counted.errors - counted.requests / 2) <= 2
    sent = len(server.asked)
    await asyncio.sleep(0.2)
    assert len(server.asked) == sent  # nothing goes on when the watch has ended


async def test_no_synthetic_requests_while_users_send_more(server: Server) -> None:
    target = Proxy(url(server), users=1000)
    async with watched("shop", step(), target, {}) as watch:
        for _ in range(3):
            await watch.read()
            await asyncio.sleep(0.05)
        before = len(server.asked)
        for _ in range(5):
            await watch.read()
            await asyncio.sleep(0.05)
        assert len(server.asked) - before <= 1  # one may have been on its way
        target.users = 0
        await until(lambda: len(server.asked) > before + 5 or _read(watch))


def _read(watch: Monitor) -> bool:
    asyncio.get_running_loop().create_task(watch.read())
    return False


async def test_synthetic_requests_go_to_the_preview_url(server: Server) -> None:
    async with watched("shop", step(preview=True), Proxy(url(server), users=1000), {}) as watch:
        await until(lambda: len(server.asked) >= 5)
        await watch.read()
        await watch.read()
        before = len(server.asked)
        await until(lambda: len(server.asked) > before + 5)  # other users do not see the preview
    assert set(server.asked) <= {"GET /preview/a", "POST /preview/b"}


async def test_requests_without_a_response_are_errors_of_no_revision() -> None:
    async with watched("shop", step(), Proxy("http://127.0.0.1:1"), {}) as watch:
        await asyncio.sleep(0.3)
        reading = await watch.read()
    (counted,) = reading.synthetic.values()
    assert counted.requests == counted.errors > 0


async def test_metric_values_are_in_the_next_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.rollout.monitor.QUERY_INTERVAL", 0.02)
    source = Source(None, MetricsUnavailable("it is away", "start it"), 7.5)
    seen: list[object] = []
    async with watched("shop", step(synthetic=None, metrics=True), FakeTarget(), {"fake/one": source}) as watch:
        for _ in range(100):
            seen.append((await watch.read()).metrics["orders"])
            await asyncio.sleep(0.005)
    assert seen[0] is None
    assert "it is away" in seen
    assert seen[-1] == 7.5


class Buggy(MetricSource):
    def query(self, expression: str) -> float | None:
        raise ZeroDivisionError("oops")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Buggy(), "a bug in fake/one: ZeroDivisionError: oops"),
        (Source(float("inf")), None),
        (Source(float("nan")), None),
        (Source(3), 3.0),
    ],
)
async def test_missing_value_replaces_the_last_one(source: MetricSource, said: object) -> None:
    async with watched("shop", step(synthetic=None, metrics=True), FakeTarget(), {"fake/one": source}) as watch:
        await asyncio.sleep(0.1)
        answer = (await watch.read()).metrics["orders"]
    assert answer == said
    assert type(answer) is type(said)
