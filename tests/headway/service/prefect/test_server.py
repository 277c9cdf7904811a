"""The Retry-After that Prefect's clients get while its database is locked."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import PlainTextResponse

from headway.service.prefect import server
from headway.service.prefect.server import CROWD, LATE, SOON, AskAgainSoon


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(server, "time", made)
    return made


async def asked(client: httpx.AsyncClient) -> float:
    answer = await client.post("/")
    assert answer.status_code == 503
    return float(answer.headers["Retry-After"])


async def test_retry_after_doubles_while_the_server_stays_busy(clock: Time) -> None:
    busy = httpx.ASGITransport(AskAgainSoon(PlainTextResponse("busy", 503)))
    async with httpx.AsyncClient(transport=busy, base_url="http://prefect") as client:
        told = [await asked(client) for _ in range(8)]
        assert told == [SOON * 2**times for times in range(6)] + [LATE, LATE]
        clock.now += CROWD + 0.1
        assert await asked(client) == SOON


async def test_six_retries_cover_a_lock_of_one_second(clock: Time) -> None:
    """One client retries as Prefect's client does: it waits for Retry-After, five times."""
    busy = httpx.ASGITransport(AskAgainSoon(PlainTextResponse("busy", 503)))
    begun = clock.now
    async with httpx.AsyncClient(transport=busy, base_url="http://prefect") as client:
        for _ in range(5):
            clock.now += await asked(client)
    assert clock.now - begun > 1.5


async def test_other_responses_are_unchanged() -> None:
    well = httpx.ASGITransport(AskAgainSoon(PlainTextResponse("well")))
    async with httpx.AsyncClient(transport=well, base_url="http://prefect") as client:
        assert "Retry-After" not in (await client.get("/")).headers
