"""Part of bench/resilience.py: releases of four apps beside one whose check prints 60,000 lines, one of them 5 MB."""

from __future__ import annotations

import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from service import Service, commit, repository, running

QUIET = 4
SETTINGS = 'app: {app}\nchecks: {{lint: "true", unit: sleep 2}}\nrun: "true"\n'
CHATTY = "app: chatty\nchecks: {noisy: python3 noise.py}\nrun: 'true'\n"
NOISE = """
import sys
write = sys.stdout.buffer.write
write(b"x" * 5_000_000 + b"\\n")
for number in range(60_000):
    write(b"line %d of a chatty test\\n" % number)
"""


def run() -> dict[str, Any]:
    with running() as service:
        apps = [
            repository(service.place / f"quiet-{number}", {"headway.yaml": SETTINGS.format(app=f"quiet-{number}")})
            for number in range(QUIET)
        ]
        chatty = repository(service.place / "chatty", {"headway.yaml": CHATTY, "noise.py": NOISE})
        released(service, apps)  # imports, caches
        alone = released(service, apps)
        beside = released(service, [*apps, chatty])
        return {
            "alone": alone,
            "beside a chatty check": beside,
            "rows of the chatty run's log": rows(service),
        }


def released(service: Service, apps: list[Path]) -> dict[str, Any]:
    """Release all apps at once."""
    for app in apps:
        commit(app, {"change": str(time.time())})
    slowest = Slowest(service)
    begun = time.monotonic()
    with slowest, ThreadPoolExecutor(len(apps)) as pool:
        codes = list(pool.map(lambda app: release(service, app), apps))
    return {
        "failed releases": sum(code != 0 for code in codes),
        "seconds": round(time.monotonic() - begun, 1),
        "slowest answer of the Prefect server, s": round(slowest.seconds, 2),
    }


def release(service: Service, app: Path) -> int:
    command = [service.headway, "release", str(app)]
    done = subprocess.run(command, env=service.environment, capture_output=True, timeout=600, check=False)
    return done.returncode


class Slowest:
    """The longest that `/health` of the Prefect server took, asked ten times a second while it is open."""

    def __init__(self, service: Service) -> None:
        self.seconds = 0.0
        self._url = f"{service.api}/health"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=300) as client:
            while not self._done.wait(0.1):
                begun = time.monotonic()
                client.get(self._url)
                self.seconds = max(self.seconds, time.monotonic() - begun)


def rows(service: Service) -> int:
    """Log records in Prefect's database that come from the chatty check's task."""
    with service.prefect as client:
        task = {"name": {"any_": ["noisy"]}}
        runs = client.post("/task_runs/filter", json={"task_runs": task, "limit": 1}).raise_for_status().json()
        count, page = 0, 200
        while True:
            wanted = {"logs": {"task_run_id": {"any_": [runs[0]["id"]]}}, "offset": count, "limit": page}
            found = client.post("/logs/filter", json=wanted).raise_for_status().json()
            count += len(found)
            if len(found) < page:
                return count
