"""The shop's health reports a real PostgreSQL and Redis, and names the one that is down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.domain.dependency_health import read
from tests.standins.ports import free_port

pytestmark = pytest.mark.slow

SHOP = Path(__file__).parents[2] / "examples" / "shop"


@contextmanager
def redis(port: int) -> Iterator[None]:
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def shop(**env: str) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "shop"],
        cwd=SHOP,
        env={"PATH": os.environ["PATH"], "PORT": str(port), "HEADWAY_VERSION": "3f2a9c1", **env},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/health/detailed"
    finally:
        process.terminate()
        process.wait(60)


def until(url: str, ailing: list[str]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        try:
            answer: dict[str, Any] = httpx.get(url, trust_env=False, timeout=60).json()
            if [one.name for one in read(answer).ailing] == ailing:
                return answer
        except httpx.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.1)


def test_missing_dependency_is_named(postgres: str) -> None:
    if not shutil.which("redis-server"):
        pytest.skip("no Redis on this machine: apt-get install redis-server")
    port = free_port()
    database = postgres.replace("postgresql+psycopg://", "postgresql://")
    with shop(DATABASE_URL=database, REDIS_URL=f"redis://127.0.0.1:{port}") as url:
        with redis(port):
            well = until(url, [])
            assert set(well["checks"]) == {"database", "redis"}
            assert read(well).well
            assert well["checks"]["database"]["latency_ms"] > 0
        gone = until(url, ["redis"])
        assert gone["status"] == "degraded"
        assert gone["checks"]["redis"]["error"] == "ConnectionError"
        assert gone["checks"]["database"]["status"] == "ok"


def test_no_configured_dependencies() -> None:
    with shop() as url:
        assert until(url, [])["checks"] == {}
