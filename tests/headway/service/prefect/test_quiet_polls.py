"""Which polls of a worker reach the Prefect server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from headway.service.prefect import quiet_polls
from headway.service.prefect.quiet_polls import INTERVAL, QuietPolls
from tests.headway.service.prefect.test_server import Time

POOL = "/api/work_pools/headway/get_scheduled_flow_runs"


class Server:
    """Counts the polls that reach it."""

    def __init__(self) -> None:
        self.polls: list[str] = []
        self.status = 200
        routes = [Route(POOL, self.poll, methods=["POST"]), Route("/{path:path}", self.other, methods=["GET", "POST"])]
        self.app = Starlette(routes=routes)

    async def poll(self, request: Request) -> JSONResponse:
        self.polls.append(request.url.path)
        return JSONResponse([{"flow_run": "r1"}], self.status)

    async def other(self, request: Request) -> JSONResponse:
        return JSONResponse({"path": request.url.path})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(quiet_polls, "time", made)
    return made


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server, clock: Time) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(QuietPolls(server.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://prefect") as made:
        yield made


async def test_while_nothing_is_scheduled_the_server_is_asked_every_two_seconds(
    server: Server, client: httpx.AsyncClient, clock: Time
) -> None:
    assert (await client.post(POOL)).json() == [{"flow_run": "r1"}]
    for _ in range(3):
        clock.now += INTERVAL / 4
        assert (await client.post(POOL)).json() == []
    assert len(server.polls) == 1
    clock.now += INTERVAL / 4
    assert (await client.post(POOL)).json() == [{"flow_run": "r1"}]


@pytest.mark.parametrize(
    "path", ["deployments/d1/create_flow_run", "flow_runs/", "flow_runs/r1/resume", "flow_runs/r1/set_state"]
)
async def test_a_poll_after_a_run_was_scheduled_reaches_the_server(
    server: Server, client: httpx.AsyncClient, path: str
) -> None:
    await client.post(POOL)
    assert (await client.post(f"/api/{path}")).json() == {"path": f"/api/{path}"}
    assert (await client.post(POOL)).json() == [{"flow_run": "r1"}]
    assert (await client.post(POOL)).json() == []


async def test_other_requests_schedule_nothing(server: Server, client: httpx.AsyncClient) -> None:
    await client.post(POOL)
    await client.post("/api/flow_runs/filter")
    await client.post("/api/logs/")
    await client.get("/api/flow_runs/r1")
    assert (await client.post(POOL)).json() == []


async def test_a_poll_that_failed_is_repeated(server: Server, client: httpx.AsyncClient) -> None:
    server.status = 503
    assert (await client.post(POOL)).status_code == 503
    server.status = 200
    assert (await client.post(POOL)).json() == [{"flow_run": "r1"}]


async def test_each_work_pool_is_polled_by_itself(server: Server, client: httpx.AsyncClient) -> None:
    other = "/api/work_pools/other/get_scheduled_flow_runs"
    await client.post(POOL)
    assert (await client.post(other)).json() == {"path": other}
    assert (await client.post(other)).json() == []
