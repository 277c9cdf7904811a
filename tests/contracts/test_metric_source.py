"""The contract of metric sources. Add a new one to WORLDS and ADAPTERS; it must pass without changes here."""

from __future__ import annotations

import json
import math
import pkgutil
import shutil
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr, ValidationError

import blocks.metrics
from blocks.metrics.prometheus import LARGEST, Prometheus
from headway.domain.errors import MetricsUnavailable
from headway.domain.ports import MetricSource

TIMEOUT = 0.6  # seconds that the sources wait for servers that are broken
SLACK = 30.0  # seconds for a slow machine
TOKEN = "tok-5e7d0c/9a+42=="


# --- a real source, and an app whose numbers the tests set ---------------------------------------------------------


@dataclass(frozen=True)
class World:
    source: MetricSource
    exposed: dict[str, float]  # what the app says when it is scraped
    expressions: Mapping[str, str]  # the same questions in every source's language


@contextmanager
def app(exposed: dict[str, float]) -> Iterator[int]:
    """Port of a server that says these metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = "".join(f"{name} {value}\n" for name, value in list(exposed.items()))
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(lines.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(place: Path, scraped: int) -> Iterator[str]:
    """URL of a Prometheus that scrapes this port every second and has done so."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus on this machine: apt-get install prometheus")
    job = {"job_name": "app", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
    config = place / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={place / 'data'}"]
    log = place / "log"
    with log.open("w") as output:
        # Port 0: one that was found free may be somebody else's by the time Prometheus listens.
        process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=output, stdout=output)
    try:
        until(lambda: process.poll() is not None or ready(process.pid), log.read_text)
        assert process.poll() is None, log.read_text()
        yield address(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def address(pid: int) -> str:
    """Empty while it does not listen."""
    found = [one.laddr for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return f"http://127.0.0.1:{found[0].port}" if found else ""


def ready(pid: int) -> bool:
    with suppress(httpx.HTTPError, psutil.NoSuchProcess):
        if url := address(pid):
            answer = httpx.get(f"{url}/api/v1/query", params={"query": "up == 1"}, trust_env=False, timeout=2)
            return answer.status_code == 200 and bool(answer.json()["data"]["result"])
    return False


def until(done: Callable[[], bool], why: Callable[[], str] = str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


@contextmanager
def prometheus(place: Path) -> Iterator[World]:
    exposed = {"orders": 12.5, "zero": 0, 'stock{shelf="a"}': 1, 'stock{shelf="b"}': 2, "full": math.inf}
    expressions = {
        "one": "orders",
        "changing": "changing",
        "gone": "gone",
        "missing": "nothing_is_called_that",
        "not a number": "zero / zero",
        "two": "stock",
        "two as one": "sum(stock)",
        "infinite": "full",
        "minus infinite": "-full",
        "nonsense": "sum(orders",
    }
    with app(exposed) as port, running(place, port) as url:
        yield World(Prometheus(url=url, token=SecretStr(TOKEN)), exposed, expressions)


WORLDS = {"prometheus": prometheus}
ADAPTERS: dict[str, Callable[[str], MetricSource]] = {
    "prometheus": lambda url: Prometheus(url=url, timeout=TIMEOUT, token=SecretStr(TOKEN)),
}


@pytest.fixture(scope="module", params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with WORLDS[request.param](tmp_path_factory.mktemp("source")) as made:
        yield made


def ask(world: World, question: str) -> float | None:
    return world.source.query(world.expressions[question])


def test_every_metric_source_is_tested() -> None:
    modules = pkgutil.iter_modules(blocks.metrics.__path__)
    assert {module.name for module in modules} == WORLDS.keys() == ADAPTERS.keys()


def test_the_value_of_a_gauge_is_read(world: World) -> None:
    assert ask(world, "one") == 12.5


def test_a_value_is_the_one_of_the_last_scrape(world: World) -> None:
    for value in (3.0, 4.0, -1e9):
        world.exposed["changing"] = value
        until(lambda value=value: ask(world, "changing") == value)  # type: ignore[misc]


def test_unknown_metric_is_no_data(world: World) -> None:
    assert ask(world, "missing") is None


def test_disappeared_metric_is_no_data(world: World) -> None:
    world.exposed["gone"] = 1
    until(lambda: ask(world, "gone") == 1)
    del world.exposed["gone"]
    until(lambda: ask(world, "gone") is None)


def test_nan_is_no_data(world: World) -> None:
    assert ask(world, "not a number") is None


def test_infinity_is_a_value(world: World) -> None:
    assert (ask(world, "infinite"), ask(world, "minus infinite")) == (math.inf, -math.inf)


def test_two_values_are_refused(world: World) -> None:
    with pytest.raises(MetricsUnavailable, match="2 series instead of one") as refused:
        ask(world, "two")
    assert "sum(" in refused.value.hint
    assert ask(world, "two as one") == 3


def test_invalid_query_quotes_the_error_of_the_source(world: World) -> None:
    with pytest.raises(MetricsUnavailable, match="parse error: unclosed left parenthesis"):
        ask(world, "nonsense")


# --- sources that are broken ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    connection: socket.socket
    asked: bytes
    over: threading.Event  # the test is

    def say(self, what: str | bytes) -> None:
        self.connection.sendall(what if isinstance(what, bytes) else what.encode())


Behaviour = Callable[[Call], None]


@contextmanager
def server(behave: Behaviour, heard: list[str] | None = None) -> Iterator[str]:
    """URL of a server that handles every request with this; `heard` collects the requests."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            # The other side hangs up on most of these: an OSError is how that looks from here.
            with suppress(OSError), listening.accept()[0] as connection:
                connection.settimeout(5)
                call = Call(connection, connection.recv(65536), over)
                if heard is not None:
                    heard.append(call.asked.decode())
                behave(call)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as bound:  # nobody else can have the port, and nobody listens
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def without_a_name() -> Iterator[str]:
    yield f"http://{'a' * 70}.invalid"


def saying(body: str, status: str = "200 OK", kind: str = "application/json") -> Behaviour:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    return lambda call: call.say(head + body)


def dripping(first: str, again: str, pause: float = TIMEOUT / 5) -> Behaviour:
    def behave(call: Call) -> None:
        end = time.monotonic() + 100 * TIMEOUT  # a source that waits for all of it is late, and the test goes on
        call.say(first)
        while not call.over.wait(pause) and time.monotonic() < end:
            call.say(again)

    return behave


def result(kind: str, value: object) -> Behaviour:
    return saying(json.dumps({"status": "success", "data": {"resultType": kind, "result": value}}))


BROKEN: dict[str, Behaviour] = {
    "hangs": dripping("", "", 100 * TIMEOUT),
    "drips its headers": dripping("HTTP/1.1 200 OK\r\n", "X-Wait: a little\r\n"),
    "drips its body": dripping("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", " "),
    "never ends": dripping("HTTP/1.1 200 OK\r\n\r\n", " " * 1_000_000, 0.001),
    "hangs up": lambda _call: None,
    "speaks no HTTP": saying("", "220 mail.example.org ESMTP\r\n\r\nwhat?"),
    "answers 500": saying("", "500 Internal Server Error"),
    "answers 502 with HTML": saying("<h1>Bad Gateway</h1>", "502 Bad Gateway", "text/html"),
    "answers 401": saying('{"message": "who are you?"}', "401 Unauthorized"),
    "leads elsewhere": saying("", "302 Found\r\nLocation: /login"),
    "says HTML": saying("<!doctype html><title>Sign in</title>", kind="text/html"),
    "says nothing": saying(""),
    "says broken bytes": lambda call: call.say(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe{"),
    "says null": saying("null"),
    "says a list": saying("[]"),
    "says too deep a list": saying("[" * 100_000),
    "says success and no more": saying('{"status": "success"}'),
    "says error and no more": saying('{"status": "error"}', "500 Internal Server Error"),
    "says words for a number": result("vector", [{"metric": {}, "value": [0, "many"]}]),
    "says a series without a value": result("vector", [{"metric": {}}]),
    "says an unknown type": result("tensor", []),
}
PLACES = {"refuses connections": refusing, "has a name that cannot be": without_a_name}


@pytest.fixture(params=[*PLACES, *BROKEN])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        place = PLACES.get(request.param)
        yield stack.enter_context(place() if place else server(BROKEN[request.param]))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_broken_source_is_an_error_within_the_timeout(adapter: str, broken: str) -> None:
    source = ADAPTERS[adapter](broken)
    start = time.monotonic()
    with pytest.raises(MetricsUnavailable) as raised:
        source.query("orders")
    assert time.monotonic() - start < TIMEOUT + SLACK
    assert broken in raised.value.what
    assert raised.value.hint


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_timed_out_source_leaves_no_thread(adapter: str) -> None:
    with server(BROKEN["drips its body"]) as url:
        before = threading.active_count()
        with pytest.raises(MetricsUnavailable):
            ADAPTERS[adapter](url).query("orders")
        until(lambda: threading.active_count() <= before, seconds=SLACK)


# --- what only Prometheus promises ---------------------------------------------------------------------------------


only_prometheus = pytest.mark.parametrize("world", ["prometheus"], indirect=True)


@only_prometheus
@pytest.mark.parametrize(
    ("expression", "value"),
    [("7 * 6", 42), ("scalar(orders)", 12.5), ("0 / 0", None), ("1 / 0", math.inf), ("-1 / 0", -math.inf)],
)
def test_a_scalar_is_a_value(world: World, expression: str, value: float | None) -> None:
    assert world.source.query(expression) == value


@only_prometheus
@pytest.mark.parametrize(("expression", "kind"), [("orders[1m]", "matrix"), ('"orders"', "string")])
def test_value_that_is_not_a_number_is_refused(world: World, expression: str, kind: str) -> None:
    with pytest.raises(MetricsUnavailable, match=f"gives a {kind} instead of a number"):
        world.source.query(expression)


@only_prometheus
def test_expression_is_sent_unchanged(world: World) -> None:
    assert world.source.query('sum(stock{shelf=~"a|b&c=d#?%20+"}) + 0') == 1
    assert world.source.query("orders # ünïcode\n") == 12.5


@only_prometheus
@pytest.mark.parametrize("expression", ["", "\ud800", "x" * 100_000, "\x1b[31mred\n\n\nnot" + " or" * 500])
def test_impossible_expression_is_refused_with_a_short_message(world: World, expression: str) -> None:
    with pytest.raises(MetricsUnavailable) as raised:
        world.source.query(expression)
    assert raised.value.what.isprintable()
    assert len(raised.value.what) < 500


def test_path_prefix_of_the_api_is_kept() -> None:
    heard: list[str] = []
    with server(result("scalar", [0, "1"]), heard) as url:
        assert Prometheus(url=f"{url}/prometheus/").query("up") == 1
    assert heard[0].startswith("GET /prometheus/api/v1/query?query=up HTTP/1.1\r\n")
    assert "authorization" not in heard[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "prometheus:9090",
        "ftp://prometheus",
        "http://",
        "http://prometheus:99999",
        "http://[::1",
        "http://me:hunter2@prometheus",
        "http://hunter2@prometheus",
        "http://prometheus/?secret=hunter2",
        "http://prometheus/#graph",
        "",
    ],
)
def test_invalid_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url") as refused:
        Prometheus(url=url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
def test_query_times_out(timeout: float) -> None:
    with pytest.raises(ValidationError, match="timeout"):
        Prometheus(url="http://prometheus", timeout=timeout)


def test_a_histogram_is_refused() -> None:
    sample = {"metric": {}, "histogram": [0, {"count": "1", "sum": "1", "buckets": []}]}
    with server(result("vector", [sample])) as url, pytest.raises(MetricsUnavailable, match="histogram") as raised:
        Prometheus(url=url).query("latency")
    assert "histogram_quantile" in raised.value.hint


def test_oversized_response_is_not_read_to_the_end() -> None:
    body = saying(" " * (LARGEST + 1))
    with server(body) as url, pytest.raises(MetricsUnavailable, match="orders gives more than 10,000,000 bytes"):
        Prometheus(url=url).query("orders")


def test_error_of_prometheus_is_cut() -> None:
    body = json.dumps({"status": "error", "errorType": "execution", "error": "long " * 1000})
    with server(saying(body, "422 Unprocessable Entity")) as url, pytest.raises(MetricsUnavailable) as raised:
        Prometheus(url=url).query("orders")
    said = raised.value.what.partition("refuses orders: ")[2]
    assert said.startswith("long long")
    assert len(said) == 200


@pytest.mark.parametrize("status", [401, 403])
def test_refused_query_mentions_the_token(status: int) -> None:
    with server(saying("no", f"{status} No")) as url, pytest.raises(MetricsUnavailable, match=str(status)) as raised:
        Prometheus(url=url).query("orders")
    assert "token" in raised.value.hint


# --- its token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [TOKEN, f"\t{TOKEN}\n"])
def test_the_token_is_sent_as_bearer(token: str) -> None:
    heard: list[str] = []
    with server(result("scalar", [0, "1"]), heard) as url:
        assert Prometheus(url=url, token=SecretStr(token)).query("up") == 1
    assert f"authorization: bearer {TOKEN}\r\n".lower() in heard[0].lower()
    assert TOKEN in heard[0]


def test_empty_token_is_anonymous() -> None:
    assert Prometheus(url="http://prometheus", token=SecretStr(" ")).token is None


@pytest.mark.parametrize("token", [f"{TOKEN}\n{TOKEN}", f"{TOKEN} {TOKEN}", f"{TOKEN}é", f"{TOKEN}\0"])
def test_unsendable_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII") as refused:
        Prometheus(url="http://prometheus", token=SecretStr(token))
    with pytest.raises(ValidationError) as plain:
        Prometheus(url="http://prometheus", token=token)
    for error in (refused.value, plain.value):
        assert TOKEN not in f"{error} {error!r} {''.join(traceback.format_exception(error))}"


def test_token_is_secret_in_prefect_and_in_repr() -> None:
    block = Prometheus(url="http://prometheus", token=SecretStr(TOKEN))
    assert Prometheus.model_json_schema()["secret_fields"] == ["token"]
    assert TOKEN not in f"{block} {block!r} {block.model_dump()} {block.model_dump_json()}"


def as_error(call: Call) -> None:
    """An error of Prometheus that is cut in the middle of the token."""
    words = {"status": "error", "error": "x" * 190 + call.asked.decode().partition("Bearer ")[2]}
    saying(json.dumps(words), "400 Bad Request")(call)


ECHOES: dict[str, Behaviour] = {
    "as its error": as_error,
    "as its status": lambda call: call.say(b"HTTP/1.1 " + call.asked.partition(b"Bearer ")[2]),
    "as its answer": lambda call: call.say(b"HTTP/1.1 200 OK\r\n\r\n" + call.asked),
    "as the number": lambda call: result("scalar", [0, call.asked.decode()])(call),
    "as the type": lambda call: result(call.asked.decode(), [])(call),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_token_repeated_by_the_server_is_not_in_errors(echo: str) -> None:
    heard: list[str] = []
    with server(ECHOES[echo], heard) as url, pytest.raises(MetricsUnavailable) as raised:
        Prometheus(url=url, token=SecretStr(TOKEN)).query("up")
    assert TOKEN in heard[0]
    shown = f"{raised.value} {raised.value!r} {''.join(traceback.format_exception(raised.value))}"
    assert TOKEN[: len(TOKEN) // 2] not in shown
