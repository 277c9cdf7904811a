"""Requests to Prefect's server that meet a busy database."""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from headway.service.prefect import server
from headway.service.prefect.server import CROWD, LATE, SOON, RetryBusy


class Time:
    """A clock that pauses move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(server, "time", made)
    monkeypatch.setattr(server, "asyncio", made)
    return made


class Busy:
    """Answers 503 some times, then with the body that it got."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.handled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        self.handled += 1
        self.left -= 1
        answer: Response = JSONResponse(json.loads(body), 201)
        await (PlainTextResponse("busy", 503) if self.left >= 0 else answer)(scope, receive, send)


async def post(app: Busy, body: object) -> httpx.Response:
    transport = httpx.ASGITransport(RetryBusy(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://prefect") as client:
        return await client.post("/", json=body)


async def test_a_request_that_meets_a_lock_is_handled_again_with_its_body(clock: Time) -> None:
    app = Busy(3)
    answer = await post(app, {"run_input": {"decision": "approve"}})
    assert (answer.status_code, answer.json()) == (201, {"run_input": {"decision": "approve"}})
    assert clock.pauses == [SOON * 2**times for times in range(3)]
    assert "Retry-After" not in answer.headers


async def test_a_lock_that_lasts_is_answered_with_when_to_come_back(clock: Time) -> None:
    begun = clock.now
    answer = await post(Busy(10**6), {})
    assert answer.status_code == 503
    assert SOON <= float(answer.headers["Retry-After"]) <= LATE
    assert server.PATIENCE <= clock.now - begun < server.PATIENCE + LATE + 0.1


async def test_alone_after_a_while_it_is_asked_again_soon(clock: Time) -> None:
    retry = RetryBusy(PlainTextResponse("busy", 503))
    pauses = [retry._pause() for _ in range(8)]
    assert pauses == [SOON * 2**times for times in range(6)] + [LATE, LATE]
    clock.now += CROWD + 0.1
    assert retry._pause() == SOON


async def test_a_large_request_is_handled_once(clock: Time) -> None:
    app = Busy(10**6)
    answer = await post(app, "x" * (server.BODY_LIMIT + 1))
    assert (answer.status_code, app.handled, clock.pauses) == (503, 1, [])
    assert float(answer.headers["Retry-After"]) == SOON


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_other_answers_are_left_as_they_are(status: int) -> None:
    app = httpx.ASGITransport(RetryBusy(PlainTextResponse("well", status)))
    async with httpx.AsyncClient(transport=app, base_url="http://prefect") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.text, "Retry-After" in answer.headers) == (status, "well", False)
