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
        self.queries = 0

    def query(self, expression: str) -> float | None:
        self.queries += 1
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
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


async def reading(watch: Monitor, wanted: Callable[[Measurements], bool]) -> Measurements:
    """The first reading of which this is true."""
    async with asyncio.timeout(60):
        while not wanted(found := await watch.read()):
            await asyncio.sleep(0.01)
    return found


def requests(found: Measurements) -> int:
    return sum(counted.requests for counted in found.synthetic.values())


async def stops(server: Server) -> bool:
    """Whether no more requests arrive soon. Some may have been on their way."""
    for _ in range(20):
        before = len(server.asked)
        await asyncio.sleep(0.3)
        if len(server.asked) == before:
            return True
    return False


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


async def test_synthetic_requests_are_sent_in_turn_and_counted_as_they_were_answered(server: Server) -> None:
    async with watched("shop", step(), Proxy(url(server)), {}) as watch:
        counted = (await reading(watch, lambda found: requests(found) >= 20)).synthetic["new"]
    assert await stops(server)  # nothing goes on when the watch has ended
    gets, posts = (server.asked.count(one) for one in ("GET /a", "POST /b"))
    assert gets + posts == len(server.asked)
    assert posts in (gets, gets - 1)
    assert 0 < counted.errors <= posts
    assert 0 < counted.requests - counted.errors <= gets


async def test_no_synthetic_requests_while_users_send_more(server: Server) -> None:
    target = Proxy(url(server), users=1000)
    async with watched("shop", step(), target, {}) as watch:
        await until(lambda: server.asked)
        for _ in range(3):
            await watch.read()
        assert await stops(server)
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
        found = await reading(watch, lambda found: requests(found) > 0)
    (counted,) = found.synthetic.values()
    assert counted.requests == counted.errors > 0


async def test_metric_values_are_in_the_next_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.rollout.monitor.QUERY_INTERVAL", 0.02)
    source = Source(None)
    async with watched("shop", step(synthetic=None, metrics=True), FakeTarget(), {"fake/one": source}) as watch:
        assert (await watch.read()).metrics == {"orders": None}
        source.answers = [MetricsUnavailable("it is away", "start it")]
        await reading(watch, lambda found: found.metrics == {"orders": "it is away"})
        source.answers = [7.5]
        await reading(watch, lambda found: found.metrics == {"orders": 7.5})


class Buggy(Source):
    def query(self, expression: str) -> float | None:
        super().query(expression)
        raise ZeroDivisionError("oops")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Buggy(0), "a bug in fake/one: ZeroDivisionError: oops"),
        (Source(float("inf")), None),
        (Source(float("nan")), None),
        (Source(3), 3.0),
    ],
)
async def test_missing_value_replaces_the_last_one(
    source: Source, said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.rollout.monitor.QUERY_INTERVAL", 0.02)
    async with watched("shop", step(synthetic=None, metrics=True), FakeTarget(), {"fake/one": source}) as watch:
        before = source.queries
        await until(lambda: source.queries > before + 1)  # the one before has been answered
        answer = (await watch.read()).metrics["orders"]
    assert answer == said
    assert type(answer) is type(said)
