"""Part `locked` of bench/resilience.py: "database is locked" of Prefect's server on SQLite, with and without Headway.

Twelve clients create flow runs and take them through their states. In the middle another process holds the write lock
of the database for two seconds. The same load runs against Prefect's own server program and against ours.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil

CLIENTS = 12
SECONDS = 30.0
LOCKED = 2.0  # seconds that another process holds the write lock
START = 120.0  # seconds
PORT = "4289"
API = f"http://127.0.0.1:{PORT}/api"
PROGRAMS = {"Prefect": "prefect.server.api.server:create_app", "Headway": "headway.service.prefect.server:app"}
STATES = ("PENDING", "RUNNING", "COMPLETED")


def run() -> dict[str, dict[str, float]]:
    """Figures by server program."""
    return {name: _measure(program) for name, program in PROGRAMS.items()}


def _measure(program: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place, server(Path(place), program) as log:
        codes: Counter[int] = Counter()
        took: list[float] = []
        end = time.monotonic() + SECONDS
        threads = [threading.Thread(target=_client, args=(end, codes, took)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 2)
        _hold_lock(Path(place) / "prefect.db")
        for thread in threads:
            thread.join()
        lines = log.read_text().count("database is locked")
    quantiles = statistics.quantiles(took, n=100)
    return {
        "requests": sum(codes.values()),
        "answered 503": codes[503],
        "other errors": sum(count for code, count in codes.items() if code >= 400 and code != 503),
        "lines with 'database is locked'": lines,
        "p50 ms": round(1000 * quantiles[49], 1),
        "p99 ms": round(1000 * quantiles[98], 1),
        "longest s": round(max(took), 1),
    }


def _client(end: float, codes: Counter[int], took: list[float]) -> None:
    with httpx.Client(base_url=API, timeout=60.0, trust_env=False) as http:

        def post(path: str, body: dict[str, object]) -> httpx.Response:
            begun = time.monotonic()
            answer = http.post(path, json=body)
            took.append(time.monotonic() - begun)
            codes[answer.status_code] += 1
            return answer

        while time.monotonic() < end:
            flow = post("/flows/", {"name": "bench"})
            if flow.is_error:
                continue
            made = post("/flow_runs/", {"flow_id": flow.json()["id"], "name": "bench"})
            for state in STATES if made.is_success else ():
                post(f"/flow_runs/{made.json()['id']}/set_state", {"state": {"type": state}, "force": True})


def _hold_lock(database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=30.0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED)
        connection.execute("ROLLBACK")


@contextmanager
def server(place: Path, program: str) -> Iterator[Path]:
    """Run the server, and return its log."""
    settings = {
        "PREFECT_HOME": str(place),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{place / 'prefect.db'}",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    log = place / "server.log"
    with log.open("w") as output:
        server = psutil.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", program, "--port", PORT, "--log-level", "warning"],
            env=environment | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy()
        yield log
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_healthy() -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        try:
            if httpx.get(f"{API}/health", timeout=2.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"the server is not healthy after {START:g} s")
