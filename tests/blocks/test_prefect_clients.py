"""Prefect's own clients, against a server that is busy, broken or away for a while."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

from blocks import prefect_clients
from tests.standins.ports import free_port

Ask = Callable[[str], "httpx.Response"]
DROP = 0  # in place of a status: the connection is closed without an answer


class Server(ThreadingHTTPServer):
    """Answers with each status in turn, then with 200."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, statuses: list[int]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.statuses = statuses
        self.bodies: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == DROP:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Not into the output of the tests."""


@contextmanager
def serving(*statuses: int, port: int = 0) -> Iterator[Server]:
    with Server(port, list(statuses)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A request of one of Prefect's two clients."""
    prefect_clients.install()
    prefect_clients.install()  # once more changes nothing
    for name in ("PREFECT__FLOW_RUN_ID", "PREFECT__WORKER_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(prefect_clients, "LONGEST_PAUSE", 0.1)

    def ask_sync(url: str) -> httpx.Response:
        with PrefectHttpxSyncClient(base_url=url, trust_env=False) as client:
            return client.post("", json={"a": 1})

    def ask_async(url: str) -> httpx.Response:
        import anyio

        async def post() -> httpx.Response:
            async with PrefectHttpxAsyncClient(base_url=url, trust_env=False) as client:
                return await client.post("", json={"a": 1})

        return anyio.run(post)

    return ask_sync if request.param == "sync" else ask_async


def url(server: Server, path: str = "") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_no_error_of_a_busy_server_is_final(ask: Ask) -> None:
    """More in a row than Prefect's client alone would bear, and kinds that it would not."""
    failures = [503, 500, 504, 502, DROP, 429, 408] * 2
    with serving(*failures) as server:
        assert ask(url(server)).status_code == 200
        assert server.bodies == [b'{"a":1}'] * (len(failures) + 1)


def test_a_form_whose_first_answer_was_lost_is_stored(ask: Ask) -> None:
    with serving(DROP, 409) as server:
        assert ask(url(server, "/flow_runs/1/input")).status_code == 201
    for first in ((409,), (DROP, 409)):  # at once, and of something else
        path = "/flow_runs/1/input" if len(first) == 1 else "/flows"
        with serving(*first) as server, pytest.raises(httpx.HTTPStatusError, match="409"):
            ask(url(server, path))


def test_an_error_of_the_request_is_final(ask: Ask) -> None:
    with serving(422, 200) as server, pytest.raises(httpx.HTTPStatusError, match="422"):
        ask(url(server))


def test_patience_ends(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_clients, "PATIENCE", 0.5)
    with serving(*[503] * 1000) as server, pytest.raises(httpx.HTTPStatusError, match="503"):
        ask(url(server))
    assert len(server.bodies) > 1


def test_an_address_where_nothing_listens_is_reported_at_once(ask: Ask) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(httpx.ConnectError):
            ask(nowhere)


def test_a_flow_run_that_starts_waits_for_a_server_that_restarts(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "1")
    port = free_port()
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(f"http://127.0.0.1:{port}").status_code))
    asking.start()
    asking.join(0.5)
    assert not answers
    with serving(port=port):
        asking.join(60)
    assert answers == [200]
