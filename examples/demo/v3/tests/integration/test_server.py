"""The real program, on a real port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def start(**env: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(
        [sys.executable, "-m", "shop"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Shop:
    def __init__(self) -> None:
        # Bound until the test ends: no other program gets the port before the shop listens on it.
        self.reserved = socket.socket()
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind(("127.0.0.1", 0))
        self.port = self.reserved.getsockname()[1]
        self.process = start(PORT=str(self.port), HEADWAY_VERSION="abc1234")

    def connect(self) -> http.client.HTTPConnection:
        deadline = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.connect()
            except ConnectionRefusedError:
                assert self.process.poll() is None, "it died"
                assert time.monotonic() < deadline, "it does not listen"
                time.sleep(0.02)
            else:
                return connection

    def get(self, path: str) -> tuple[int, Any]:
        return ask(self.connect(), path)


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, Any]:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    return answer.status, json.loads(body) if answer.headers["Content-Type"] == "application/json" else body


@pytest.fixture
def shop() -> Iterator[Shop]:
    running = Shop()
    yield running
    running.process.kill()
    running.process.communicate()
    running.reserved.close()


def test_health(shop: Shop) -> None:
    assert shop.get("/health") == (200, {"status": "ok", "version": "abc1234"})
    status, details = shop.get("/health/detailed")
    assert status == 200
    assert details["version"] == "abc1234"


def test_page(shop: Shop) -> None:
    status, page = shop.get("/")
    assert status == 200
    assert b"Mugs" in page


def test_prices_over_one_connection(shop: Shop) -> None:
    connection = shop.connect()
    assert ask(connection, "/price?items=3")[1]["total"] == 4090
    socket_before = connection.sock
    assert ask(connection, "/price?items=10")[1]["total"] == 11890
    assert connection.sock is socket_before


@pytest.mark.parametrize(
    ("path", "status"), [("/price", 400), ("/price?items=x", 400), ("/price?items=0", 400), ("/nowhere", 404)]
)
def test_bad_requests(shop: Shop, path: str, status: int) -> None:
    answered, body = shop.get(path)
    assert answered == status
    assert body["error"]


def test_sigterm_ends_it_with_idle_connections(shop: Shop) -> None:
    idle = shop.connect()
    assert ask(idle, "/health")[0] == 200
    shop.process.send_signal(signal.SIGTERM)
    output, _ = shop.process.communicate(timeout=60)
    assert shop.process.returncode == 0
    assert output.endswith("shop: stopped\n")


def test_sigterm_under_load_loses_no_answer(shop: Shop) -> None:
    """A request is answered, or its connection was closed before it was sent: never cut off in between."""
    first_answers = threading.Barrier(5)
    broken: list[BaseException] = []

    def customer() -> None:
        connection = shop.connect()
        for number in range(100_000):
            try:
                connection.request("GET", "/price?items=3")
            except OSError:
                return
            try:
                answer = connection.getresponse()
                answer.read()
            except (http.client.RemoteDisconnected, ConnectionResetError):
                return
            except Exception as error:
                broken.append(error)
                return
            if number == 0:
                first_answers.wait(60)
            if answer.headers["Connection"] == "close":
                return

    customers = [threading.Thread(target=customer) for _ in range(4)]
    for each in customers:
        each.start()
    first_answers.wait(60)
    shop.process.send_signal(signal.SIGTERM)
    for each in customers:
        each.join(60)
    output, _ = shop.process.communicate(timeout=60)
    assert (broken, shop.process.returncode) == ([], 0), output


def test_a_wrong_environment_ends_it_at_once() -> None:
    process = start(PORT="http", CURRENCY="XXX")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.startswith("shop: PORT: is 'http'")
    assert "CURRENCY" in output


def test_a_taken_port(shop: Shop) -> None:
    shop.connect()
    process = start(PORT=str(shop.port))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == f"shop: port {shop.port}: Address already in use\n"
