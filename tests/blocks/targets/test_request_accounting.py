"""Request counts of a real Envoy, compared with what the clients saw, for every way a request can end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from blocks.targets.process.target import ProcessTarget
from headway.domain.measurements import RequestCounts
from headway.domain.revision import Http, LaunchSpec
from headway.domain.traffic import Traffic
from headway.rollout.request_counter import RequestCounter
from headway.testing.contracts import start
from tests.contracts import targets

pytestmark = pytest.mark.slow

NUMBER = 6  # requests of each kind
GIVE_UP = 2.0  # seconds; Envoy breaks an answer off a second after the instance did
APP = r"""
import os, socket, struct, threading, time

def broken_off(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

def serve(connection):
    lines = connection.makefile("rb")
    while line := lines.readline():
        while lines.readline().strip():
            pass
        path = line.split()[1].decode()
        if path.startswith("/hang"):
            time.sleep(30)
        if path.startswith("/reset"):
            broken_off(connection)
            break
        if path.startswith("/cut"):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            break
        if path.startswith("/once"):  # the first try breaks off, the next one is answered
            try:
                open("asked-" + path[1:], "x")
                broken_off(connection)
                break
            except FileExistsError:
                pass
        status = 503 if path.startswith("/503") else 200
        connection.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok".encode())
    lines.close()
    connection.close()

server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=200)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture
def spec(tmp_path: Path) -> LaunchSpec:
    return targets.bundle_spec(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ProcessTarget]:
    with targets.process(tmp_path / "target") as made:
        yield made


def counted(
    meter: RequestCounter, revision: str, before: tuple[RequestCounts, RequestCounts], wanted: RequestCounts
) -> tuple[RequestCounts, RequestCounts]:
    """Wait for all counts; return those of the revision and of users, without latencies."""
    end = time.monotonic() + 60
    while True:
        now = meter.read()
        assert now.edge is not None
        own, edge = now.counts[revision].since(before[0]), now.edge.since(before[1])
        found = own.model_copy(update={"latency": ()}), edge.model_copy(update={"latency": ()})
        if found[0] == wanted or time.monotonic() > end:
            return found
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("path", "method", "saw", "own", "edge"),
    [
        ("/", "GET", "200", RequestCounts(requests=NUMBER), RequestCounts(requests=NUMBER)),
        (
            "/503",
            "GET",
            "503",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        (
            "/503",
            "POST",
            "503",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        (
            "/reset",
            "POST",
            "503",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        (
            "/once",
            "GET",
            "503",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        (
            "/cut",
            "GET",
            "broken off",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        ("/hang", "GET", "given up", RequestCounts(unanswered=NUMBER), RequestCounts(unanswered=NUMBER)),
        ("/hang", "POST", "given up", RequestCounts(unanswered=NUMBER), RequestCounts(unanswered=NUMBER)),
    ],
)
def test_every_request_counts_once(
    target: ProcessTarget, spec: LaunchSpec, path: str, method: str, saw: str, own: RequestCounts, edge: RequestCounts
) -> None:
    send_and_count(target, spec, (path, method, saw), own, edge)


@pytest.mark.parametrize(
    ("path", "saw", "own", "edge"),
    [
        # tried four times each, and one failure each
        (
            "/503",
            "503",
            RequestCounts(requests=NUMBER, errors=NUMBER),
            RequestCounts(requests=NUMBER, errors=NUMBER),
        ),
        # users did not notice, the judge does
        ("/once", "200", RequestCounts(requests=NUMBER, errors=NUMBER), RequestCounts(requests=NUMBER)),
    ],
)
def test_a_request_that_is_tried_again_counts_once(
    target: ProcessTarget, spec: LaunchSpec, path: str, saw: str, own: RequestCounts, edge: RequestCounts
) -> None:
    send_and_count(target, spec.model_copy(update={"http": Http(retry=3)}), (path, "GET", saw), own, edge)


def send_and_count(
    target: ProcessTarget,
    spec: LaunchSpec,
    requests: tuple[str, str, str],
    own: RequestCounts,
    edge: RequestCounts,
) -> None:
    """Send requests, `path`, `method`, `saw`, and compare what the proxy counts."""
    path, method, saw = requests
    revision = start(target, targets.with_files(spec, app=APP))
    target.route("shop", Traffic.all_to(revision))
    meter = RequestCounter(target, "shop")
    first = meter.read()
    assert first.edge is not None
    url = target.observe("shop").url
    assert url is not None
    with ThreadPoolExecutor(NUMBER) as pool:
        seen = Counter(pool.map(lambda number: send(f"{url}{path}-{number}", method), range(NUMBER)))
    assert seen == {saw: NUMBER}
    assert counted(meter, revision.id, (first.counts[revision.id], first.edge), own) == (own, edge)


def send(url: str, method: str) -> str:
    try:
        patience = GIVE_UP if "/hang" in url else 60.0
        return str(httpx.request(method, url, timeout=patience, trust_env=False).status_code)
    except httpx.TimeoutException:
        return "given up"
    except httpx.RemoteProtocolError:
        return "broken off"


def test_counts_continue_after_envoy_is_killed(target: ProcessTarget, spec: LaunchSpec) -> None:
    revision = start(target, targets.with_files(spec, app=APP))
    target.route("shop", Traffic.all_to(revision))
    url = target.observe("shop").url
    assert url is not None
    meter = RequestCounter(target, "shop")
    assert {send(f"{url}/503", "GET") for _ in range(NUMBER)} == {"503"}
    before = meter.read().counts[revision.id]
    assert (before.requests, before.errors) == (NUMBER, NUMBER)
    target._supervisor.stop("shop-edge")
    target.route("shop", Traffic.all_to(revision))  # starts it
    assert {send(f"{url}/503", "GET") for _ in range(2 * NUMBER)} == {"503"}
    after = meter.read().counts[revision.id]
    assert (after.requests, after.errors) == (3 * NUMBER, 3 * NUMBER)
