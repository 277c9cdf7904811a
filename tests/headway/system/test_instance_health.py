"""Health checks of an instance that the proxy believes: by a token, and only for a socket of the instance's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from headway.system.instance_health import HealthResponder
from tests.standins.ports import free_port

TOKEN = "s3cr3t-token"
HANG = 2.0  # seconds
STRANGER = """
import http.server, sys
http.server.HTTPServer(("0.0.0.0", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/hang":
            time.sleep(HANG)
        known = self.headers["Host"] == "shop.example.com"
        self.send_response(200 if known else 400)
        self.end_headers()
        self.wfile.write(b"fine" if known else b"unknown host")

    def log_message(self, *_: object) -> None:
        """Not into the output of the tests."""


@pytest.fixture
def app() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", free_port()), App) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.shutdown()


class Responder:
    """One that serves, with what it was asked for."""

    def __init__(self, instance_port: int, processes: set[int], **settings: Any) -> None:
        self.healthy = 0
        usual = {"path": "/health", "host": "shop.example.com", "timeout": 1.0, "token": TOKEN}
        self.settings = usual | {"port": free_port(), "instance_port": instance_port} | settings
        HealthResponder(self.settings, lambda: processes, self._on_healthy).start()

    def _on_healthy(self) -> None:
        self.healthy += 1

    def ask(self) -> tuple[int, str]:
        answer = httpx.get(f"http://127.0.0.1:{self.settings['port']}/", trust_env=False)
        return answer.status_code, answer.text


def test_a_healthy_instance_is_answered_for_with_the_token(app: ThreadingHTTPServer) -> None:
    responder = Responder(app.server_port, {os.getpid()})
    assert [responder.ask() for _ in range(3)] == [(200, TOKEN)] * 3
    assert responder.healthy == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "127.0.0.1"}, "/health answers 400 to Host: 127.0.0.1: unknown host"),
        ({"path": "/hang", "timeout": 0.2}, "no answer within 0.2 s"),
    ],
)
def test_why_an_instance_is_unhealthy_is_said(app: ThreadingHTTPServer, settings: dict[str, Any], reason: str) -> None:
    responder = Responder(app.server_port, {os.getpid()}, **settings)
    assert responder.ask() == (503, reason)
    assert responder.healthy == 0


def test_a_dead_instance_is_unhealthy() -> None:
    status, reason = Responder(free_port(), {os.getpid()}).ask()
    assert status == 503
    assert "refused" in reason


def test_a_socket_of_another_program_is_not_the_instance(app: ThreadingHTTPServer) -> None:
    status, reason = Responder(app.server_port, {os.getppid()}).ask()
    assert (status, reason) == (
        503,
        f"port {app.server_port} is served by a program that this instance has not started",
    )


def test_another_program_that_takes_the_port_of_a_dead_instance_is_not_the_instance(app: ThreadingHTTPServer) -> None:
    responder = Responder(app.server_port, {os.getpid()})
    assert responder.ask() == (200, TOKEN)
    app.shutdown()
    app.server_close()
    stranger = subprocess.Popen([sys.executable, "-c", STRANGER, str(app.server_port)], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while httpx_status(app.server_port) != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert responder.ask()[0] == 503
    finally:
        stranger.kill()
        stranger.wait(60)


def test_a_port_that_is_taken_is_an_error(app: ThreadingHTTPServer) -> None:
    with pytest.raises(OSError, match="in use"):
        Responder(app.server_port, set(), port=app.server_port)


def httpx_status(port: int) -> int | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code
    except httpx.HTTPError:
        return None
