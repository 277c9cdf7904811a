"""The door with a real Envoy: in front of the web service, and of an app that answers as Prefect's server does."""

from __future__ import annotations

import contextvars
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from headway.domain.principal import Principal
from headway.ledger.prefect_requests import CREATOR
from headway.service.api.authentication import Site
from headway.service.api.http_server import ClientAddress
from headway.service.door import process
from headway.service.prefect.credential import authorization, make_login
from headway.service.prefect.door_requests import DoorRequests
from headway.system.os_user import os_user
from tests.standins.ports import free_port
from tests.standins.webhook_receiver import Receiver, receiver

__all__ = ["Door", "PrefectServer", "running_door", "until_it_listens"]

STARTING = 30.0  # seconds


class PrefectServer:
    """Says what it got. Its login is checked by the middleware under test, and by what it records."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        routes = [
            WebSocketRoute("/api/events/out", self._stream),
            Route("/{path:path}", self._answer, methods=["GET", "POST", "DELETE", "PATCH"]),
        ]
        self.app = DoorRequests(Starlette(routes=routes))

    async def _answer(self, request: Request) -> Response:
        got = {
            "path": request.url.path,
            "authorization": request.headers.get("authorization"),
            "cookie": request.headers.get("cookie"),
            "creator": [request.headers.getlist(name) for name in CREATOR],
            "body": (await request.body()).decode(),
            "login": PREFECT_SERVER_API_AUTH_STRING.value(),
        }
        self.requests.append(got)
        return JSONResponse(got | {"login": bool(got["login"])})

    async def _stream(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="prefect")
        first = await websocket.receive_json()
        await websocket.send_json(first)
        await websocket.close()


class Serving:
    """An ASGI app in a thread, on a socket."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(app, log_level="warning", log_config=None, lifespan="off", proxy_headers=False)
        self._server = uvicorn.Server(config)
        run = contextvars.copy_context().run  # with the settings of Prefect that the test has set
        self._thread = threading.Thread(target=run, args=(self._server.run, [listening]), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)


class Door:
    """Where it listens, and what is behind it."""

    def __init__(self, home: Path, web: Receiver, prefect: PrefectServer) -> None:
        self.home, self.web, self.prefect = home, web, prefect
        self.url = ""
        self.serving: Serving | None = None

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def signed_in(self, person: Principal | None = None) -> httpx.Client:
        """A browser with a session of this person; of the OS user by default. It sends its origin, as browsers do."""
        session = self.web.ledger.sessions.begin(person or os_user())
        client = self.client
        client.cookies.set("headway-session", session)
        client.headers["origin"] = self.url
        return client

    def serve_web(self) -> None:
        path = process.web_socket()
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        self.serving = Serving(ClientAddress(self.web.app), listening)

    def stop_web(self) -> None:
        assert self.serving is not None
        self.serving.stop()


@contextmanager
def running_door(home: Path) -> Iterator[Door]:
    """One that listens until the block ends; `home` is HEADWAY_HOME meanwhile."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADWAY_HOME", str(home))
    prefect = PrefectServer()
    backend = socket.create_server(("127.0.0.1", 0))
    address = ("127.0.0.1", backend.getsockname()[1])
    login = make_login()
    with receiver(home) as web, temporary_settings({PREFECT_SERVER_API_AUTH_STRING: login}):
        made = Door(home, web, prefect)
        port = free_port()
        made.url = f"http://127.0.0.1:{port}"
        web.services = replace(web.services, site=Site(made.url, frozenset({f"127.0.0.1:{port}"})))
        behind = Serving(prefect.app, backend)
        made.serve_web()
        command = process.command("127.0.0.1", port, None, address, authorization(login))
        envoy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(home / "envoy.log").open("wb"))
        try:
            until_it_listens(port, home / "envoy.log")
            yield made
        finally:
            envoy.terminate()
            envoy.wait(30)
            made.stop_web()
            behind.stop()
            patch.undo()


def until_it_listens(port: int, log: Path) -> None:
    end = time.monotonic() + STARTING
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        else:
            return
