"""The HTTP client with a real server: retries, their limits and pauses, and error messages."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tenacity import wait_none

from headway.domain.errors import TargetError
from headway.system.http_client import DEFAULT_FAILURES, Failure, Failures, HttpClient, Limits, Outcome, Repeat
from headway.system.retry_policy import Retry, Retryable, RetryPolicy, rate_limit_reset, retry_after
from tests.standins.hosted_apps import Trust

LIMITS = Limits(5.0)
TOKEN = "tok-8812aa"
BREAK = 0  # the server ends the connection after it has read the request


@dataclass
class Server:
    """Answers from a script, then 200."""

    url: str = ""
    script: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def answers(self, *statuses: int, body: bytes = b"", **headers: str) -> None:
        self.script += [
            (status, {name.replace("_", "-"): of for name, of in headers.items()}, body) for status in statuses
        ]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            made.requests.append(f"{self.command} {self.path}")
            status, headers, body = made.script.pop(0) if made.script else (200, {}, b"fine")
            if status == BREAK:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815  # http.server calls them so

        def log_message(self, *_: object) -> None:
            """Not into the output of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        made.url = f"http://127.0.0.1:{serving.server_address[1]}"
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield made
        serving.shutdown()
        thread.join()


@dataclass
class Client:
    """A client whose pauses are recorded instead of waited for."""

    server: Server
    pauses: list[float] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)

    def connect(
        self,
        *,
        failures: Failures = DEFAULT_FAILURES,
        limits: Limits = LIMITS,
        url: str = "",
        policy: dict[str, Any] | None = None,
        **options: Any,
    ) -> HttpClient:
        retries = RetryPolicy(attempts=3, backoff=wait_none(), longest_retry_after=60.0, sleep=self.pauses.append)

        def describe(failure: Failure) -> TargetError:
            self.failed.append(failure)
            text = failure.response.text if failure.response is not None else repr(failure.error)
            return TargetError(f"the shop: {failure.request}: {connected.quote(text)}", "look at it")

        connected = HttpClient(
            url or self.server.url, limits, replace(retries, **(policy or {})), describe, failures, **options
        )
        return connected

    def asks(self, method: str = "GET", repeat: Repeat | None = None, **how: Any) -> httpx.Response:
        with self.connect(**how) as client:
            return client.request(method, "/thing", repeat=repeat)


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server)


# --- what is repeated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, BREAK])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_an_idempotent_request_is_repeated(server: Server, client: Client, method: str, status: int) -> None:
    server.answers(status, status)
    assert client.asks(method).text == "fine"
    assert server.requests == [f"{method} /thing"] * 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, BREAK])
def test_a_post_that_may_have_been_processed_is_not_repeated(server: Server, client: Client, status: int) -> None:
    server.answers(status)
    with pytest.raises(TargetError):
        client.asks("POST")
    assert len(server.requests) == 1
    assert (client.failed[0].outcome, client.failed[0].may_be_repeated) == (Outcome.UNKNOWN, False)


def test_a_post_that_was_not_processed_is_repeated(server: Server, client: Client) -> None:
    server.answers(429)
    assert client.asks("POST").text == "fine"
    assert len(server.requests) == 2


def test_the_caller_says_that_a_post_is_idempotent(server: Server, client: Client) -> None:
    server.answers(502)
    assert client.asks("POST", Repeat.IDEMPOTENT).text == "fine"


def test_the_caller_says_that_a_put_is_not(server: Server, client: Client) -> None:
    server.answers(502)
    with pytest.raises(TargetError):
        client.asks("PUT", Repeat.IF_NOT_PROCESSED)
    assert len(server.requests) == 1


def test_503_is_repeated_for_any_request_where_it_means_that_nothing_was_done(server: Server, client: Client) -> None:
    server.answers(503, 503)
    assert client.asks("POST", failures=Failures(not_processed=frozenset({503}))).text == "fine"


def test_a_post_without_a_connection_is_repeated(client: Client) -> None:
    with pytest.raises(TargetError):
        client.asks("POST", url="http://127.0.0.1:1")
    assert [failure.outcome for failure in client.failed] == [Outcome.NOT_PROCESSED] * 3


def test_connection_errors_are_final_where_the_caller_says_so(client: Client) -> None:
    with pytest.raises(TargetError):
        client.asks(url="http://127.0.0.1:1", failures=Failures(errors_not_processed=(), errors_unknown=()))
    assert [failure.outcome for failure in client.failed] == [None]


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 409, 422])
def test_other_statuses_are_returned_to_the_caller(server: Server, client: Client, status: int) -> None:
    server.answers(status)
    assert client.asks().status_code == status
    assert len(server.requests) == 1


def test_a_wrong_certificate_is_final(client: Client, tmp_path: Path) -> None:
    context = Trust(tmp_path).server()
    attempts: list[int] = []

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            attempts.append(1)
            with connection:
                try:
                    context.wrap_socket(connection, server_side=True)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        with pytest.raises(TargetError, match="certificate verify failed"):
            client.asks(url=f"https://127.0.0.1:{listening.getsockname()[1]}")
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(60)
    assert len(attempts) == 1


def test_an_address_without_a_scheme_is_final(client: Client) -> None:
    with pytest.raises(TargetError):
        client.asks(url="127.0.0.1/api")
    assert len(client.failed) == 1


# --- how often and how long ----------------------------------------------------------------------------------------


def test_attempts_are_limited(server: Server, client: Client) -> None:
    server.answers(*[503] * 9, body=b"too busy")
    with pytest.raises(TargetError, match=r"the shop: GET /thing: too busy\n  hint: look at it"):
        client.asks()
    assert len(server.requests) == 3


def test_retry_after_is_obeyed(server: Server, client: Client) -> None:
    server.answers(429, 503, Retry_After="7")
    client.asks()
    assert client.pauses == [7.0, 7.0]


def test_retry_waits_for_the_end_of_a_rate_limit(server: Server, client: Client) -> None:
    server.answers(429, X_RateLimit_Reset=str(time.time() + 30))
    client.asks()
    (pause,) = client.pauses
    assert 20 < pause <= 30


def test_rate_limit_headers_are_ignored_for_other_failures(server: Server, client: Client) -> None:
    server.answers(503, X_RateLimit_Reset=str(time.time() + 3600))  # every response of such an API has it
    client.asks()
    assert client.pauses == [0.0]


def test_long_retry_after_is_an_error_at_once(server: Server, client: Client) -> None:
    server.answers(503, Retry_After="61")
    with pytest.raises(TargetError):
        client.asks()
    assert len(server.requests) == 1
    assert client.failed[0].after == 61


def test_no_attempt_begins_after_the_deadline(server: Server, client: Client) -> None:
    server.answers(*[503] * 9, Retry_After="30")
    with pytest.raises(TargetError):
        client.asks(policy={"deadline": 20.0, "attempts": 9})
    assert len(server.requests) == 1


def test_every_request_has_all_its_attempts(server: Server, client: Client) -> None:
    server.answers(503, 503, 200, 503, 503, 200)
    with client.connect() as connected:
        for _ in range(2):
            assert connected.request("GET", "/thing").is_success
    assert len(server.requests) == 6


def test_a_caller_with_its_own_transport_uses_the_policy() -> None:
    retries: list[Retry] = []
    policy = RetryPolicy(attempts=3, backoff=wait_none(), sleep=lambda _: None)

    def attempt() -> None:
        raise Retryable(TargetError("busy"), after=2.0)

    with pytest.raises(Retryable) as last:
        policy.run(attempt, retries.append)
    assert last.value.attempts == 3
    assert [(one.number, one.pause, str(one.error)) for one in retries] == [(2, 2.0, "busy"), (3, 2.0, "busy")]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3), (" 3 ", 3), ("0.5", 0.5), ("-5", 0), ("0", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_read(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}) == seconds


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_may_be_a_date(zone: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True).replace("GMT", zone)
    assert 80 < (retry_after({"retry-after": date}) or 0) <= 90


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "Fri, 99 Foo 2199"])
def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    assert retry_after({"Retry-After": value}) is None
    assert rate_limit_reset({"X-RateLimit-Reset": value}) is None


def test_without_a_header_there_is_no_pause() -> None:
    assert (retry_after({}), rate_limit_reset({})) == (None, None)


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_body_is_limited(server: Server, client: Client) -> None:
    server.answers(200, body=b"x" * 1001)
    with pytest.raises(TargetError, match="more than 1,000 bytes"):
        client.asks(limits=Limits(5.0, bytes=1000))
    assert len(server.requests) == 1


def test_a_whole_attempt_is_limited(client: Client) -> None:
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            while not over.wait(0.05):
                connection.sendall(b"HTTP/1.1 200 OK\r\n" if not over.is_set() else b"")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_quietly(drip, listening))
        thread.start()
        with pytest.raises(TargetError, match=r"no answer within 0\.3 s"):
            client.asks(
                url=f"http://127.0.0.1:{listening.getsockname()[1]}",
                limits=Limits(5.0, whole=0.3),
                policy={"attempts": 1},
            )
        over.set()
        thread.join()


def _quietly(serve: Callable[[socket.socket], None], listening: socket.socket) -> Callable[[], None]:
    def run() -> None:
        try:
            serve(listening)
        except OSError:
            return

    return run


def test_a_compressed_body_is_decoded_once(server: Server, client: Client) -> None:
    server.answers(200, body=gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")
    assert client.asks().json() == {"a": 1}


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["Authorization", "PRIVATE-TOKEN", "X-Api-Key"])
def test_credentials_of_the_connection_are_not_in_errors(server: Server, client: Client, header: str) -> None:
    server.answers(*[500] * 3, body=f"I do not know {TOKEN} \n really".encode())
    with pytest.raises(TargetError) as failed:
        client.asks(headers={header: f"Bearer {TOKEN}"})
    assert failed.value.what == "the shop: GET /thing: I do not know ******** really"
    assert failed.value.__cause__ is None


def test_credentials_of_a_request_are_not_in_errors(server: Server, client: Client) -> None:
    server.answers(*[500] * 3, body=TOKEN.encode())
    with client.connect() as connected, pytest.raises(TargetError) as failed:
        connected.request("GET", "/thing", headers={"Authorization": f"Bearer {TOKEN}"})
    assert TOKEN not in str(failed.value)


def test_long_error_text_of_the_server_is_cut(server: Server, client: Client) -> None:
    with client.connect() as connected:
        assert connected.quote("x" * 1000) == "x" * 299 + "…"
        assert connected.quote("a\n b\x00c") == "a b c"


# --- connections ---------------------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used_only_if_asked_for(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert client.asks().text == "fine"
    with pytest.raises(TargetError):
        client.asks(trust_env=True)


def test_https_uses_the_system_trust_store(client: Client, trust: Trust) -> None:
    context = trust.server()

    def serve(listening: socket.socket) -> None:
        with listening.accept()[0] as plain, context.wrap_socket(plain, server_side=True) as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_quietly(serve, listening))
        thread.start()
        assert client.asks(url=f"https://127.0.0.1:{listening.getsockname()[1]}").text == "fine"
        thread.join()
