"""Measure how long users still get the bad revision after the verdict: `python bench/rollback.py`.

Complete releases through `headway up`, under load: each bad version becomes ready, gets its first share of the traffic,
fails requests, and is judged. The time runs from the verdict, as recorded in the ledger, to the bad revision's last
response. Baseline in the same run, under the same load: one bare switch of the target's route.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from service import Service, commit, repository, running

from headway.domain.ports import Target
from headway.domain.traffic import Traffic
from headway.ledger import Ledger
from headway.rollout.load_generator import Load
from headway.service.prefect.connections import connections

ROUNDS = 5
RATE = 100.0  # requests a second
SETTINGS = """
app: shop
run: exec python3 app.py
environments:
  production:
    target: process/production
    instances: 2
    stop_grace: 1s
    drain: 1s
    strategy: {rolling: {analysis: {window: 20s, success_rate: ">= 99"}}}
"""
APP = """
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode()
        self.send_response(STATUS if self.path == "/buy" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass
class Watcher:
    """Sends requests in a loop and records each revision's last response (seconds since the epoch)."""

    url: str
    last: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> Watcher:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            while not self._stop.is_set():
                revision = client.get("/").headers.get("x-headway-revision", "")
                self.last[revision] = time.time()


@dataclass
class Figures:
    bare: list[float] = field(default_factory=list)
    rollback: list[float] = field(default_factory=list)
    sent: int = 0
    failed_after: int = 0


def main() -> None:
    with running() as service:
        os.environ |= {
            "HEADWAY_HOME": str(service.home),
            "PREFECT_API_URL": service.api,
            "PREFECT_API_AUTH_STRING": service.login,
        }
        repo = repository(service.place / "shop", {"headway.yaml": SETTINGS, "app.py": f"STATUS = 200\n{APP}"})
        release(service, repo)
        target = asyncio.run(connections().load_target("process/production"))
        figures = Figures()
        with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
            for number in range(ROUNDS):
                commit(repo, {"app.py": f"STATUS = 500  # {number}\n{APP}"})
                measure_rollback(service, repo, target, ledger, figures)
    ratio = statistics.median(figures.rollback) / statistics.median(figures.bare)
    print(f"{platform.platform()}, Python {platform.python_version()}, {ROUNDS} releases under {RATE:g} requests/s")
    for name, seconds in (("bare switch of the route", figures.bare), ("verdict to rollback done", figures.rollback)):
        print(f"{name:28} median {statistics.median(seconds):.3f} s   worst {max(seconds):.3f} s")
    print(f"ratio {ratio:.2f}; requests sent {figures.sent}, failed on the old revision {figures.failed_after}")
    print("goal: under 1 s, 0 failed")


def measure_rollback(service: Service, repo: Path, target: Target, ledger: Ledger, figures: Figures) -> None:
    url = target.observe("shop").url
    assert url is not None
    with Watcher(url) as watcher, Load(url, paths=("/", "/", "/buy"), rate=RATE) as load:
        released = release(service, repo)
        assert released["state"] == "rolled_back", released
        time.sleep(0.3)
    failed, rollback = ledger.rollouts.by_release(released["id"])
    verdict = next(step.finished_at for step in ledger.rollouts.steps(failed.id) if step.outcome == "failed")
    assert verdict is not None
    figures.rollback.append(max(0.0, watcher.last[failed.plan.new] - verdict.timestamp()))
    figures.sent += load.sent
    figures.failed_after += sum(1 for failure in load.failures if not failure.startswith("/buy: 500"))
    lock = ledger.locks.acquire("shop", "production", holder="bench", revision=rollback.plan.new, lease=60)
    assert lock is not None
    target.claim("shop", lock.token)
    figures.bare.append(bare_switch(target, url, rollback.plan.new))
    ledger.locks.release(lock)


def bare_switch(target: Target, url: str, live: str) -> float:
    """Seconds from routing an idle app to its live revision until the first response: the cost of one route change."""
    with Load(url, rate=RATE), httpx.Client(base_url=url, trust_env=False) as client:
        target.route("shop", Traffic())
        begun = time.monotonic()
        target.route("shop", Traffic.all_to(live))
        while client.get("/").is_error:
            if time.monotonic() - begun > 10:
                raise TimeoutError("the route is not in force")
        return time.monotonic() - begun


def release(service: Service, repo: Path) -> dict[str, str]:
    completed = subprocess.run(
        [service.headway, "release", str(repo), "--json"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    released: dict[str, str] = json.loads(completed.stdout)
    return released


if __name__ == "__main__":
    main()
