"""Requests that Headway sends itself are not called those of users."""

from __future__ import annotations

import asyncio
import http.server
import ssl
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from headway.domain.measurements import Bucket, RequestCounts
from headway.rollout.own_requests import OwnRequests

SLOW = (Bucket(1.0, 2.0, 3),)


@pytest.mark.parametrize(
    ("own", "seen", "users"),
    [
        ((0, 0, 0), (10, 2, 1), (10, 2, 1)),
        ((4, 0, 0), (10, 2, 1), (6, 2, 1)),
        ((4, 2, 1), (10, 2, 1), (6, 0, 0)),
        ((10, 0, 0), (10, 0, 0), (0, 0, 0)),
        ((3, 3, 2), (5, 1, 0), (2, 0, 0)),
    ],
)
def test_requests_errors_and_interruptions_of_our_own_are_left_out(
    own: tuple[int, int, int], seen: tuple[int, int, int], users: tuple[int, int, int]
) -> None:
    counter = OwnRequests()
    counter.add(own[0], errors=own[1], unanswered=own[2])
    found = counter.users(RequestCounts(requests=seen[0], errors=seen[1], unanswered=seen[2], latency=SLOW))
    assert (found.requests, found.errors, found.unanswered) == users
    assert found.latency == (SLOW if found.requests else ())


def test_a_response_that_the_proxy_counts_later_is_left_out_then() -> None:
    counter = OwnRequests()
    counter.add(5)
    assert counter.users(RequestCounts(requests=3)).requests == 0
    assert counter.users(RequestCounts(requests=9)).requests == 7
    assert counter.users(RequestCounts(requests=9)).requests == 9


def test_requests_before_the_first_reading_are_forgotten() -> None:
    counter = OwnRequests()
    counter.add(5, errors=5)
    counter.clear()
    assert counter.users(RequestCounts(requests=6, errors=1)) == RequestCounts(requests=6, errors=1)


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/broken":
            self.connection.close()
            return
        time.sleep({"/slow": 0.5, "/never": 3.0}.get(self.path, 0.0))
        self.send_response(500 if self.path == "/fails" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_a_client_counts_what_it_sends(url: str) -> None:
    counter = OwnRequests()
    async with httpx.AsyncClient(base_url=url, transport=counter.transport(ssl.create_default_context())) as client:
        for path in ("/", "/", "/fails"):
            await client.get(path)
        with pytest.raises(httpx.TransportError):
            await client.get("/broken")
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")
    assert counter.users(RequestCounts(requests=5, errors=2, unanswered=2)) == RequestCounts(
        requests=2, errors=1, unanswered=1
    )


async def test_an_answer_that_comes_when_the_request_is_given_up_counts(url: str) -> None:
    """The proxy has counted it as answered: it would be called a user's."""
    counter = OwnRequests()
    async with httpx.AsyncClient(base_url=url, transport=counter.transport(ssl.create_default_context())) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get("/slow")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get("/never")
    assert counter.users(RequestCounts(requests=1, unanswered=1)) == RequestCounts()
    assert counter.users(RequestCounts(requests=1, unanswered=1)) == RequestCounts(requests=1, unanswered=1)
