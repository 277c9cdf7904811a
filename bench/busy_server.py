"""Part `busy` of bench/resilience.py: releases while half of all calls to Prefect's server fail.

In front of the server a layer answers 503 to a random half of all calls: one in two of those before the server has seen
the call, the other after it was handled, so that its answer is lost. Twenty releases of twenty apps run at the same
time, submitted and approved by the command line. The same releases run undisturbed first.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from database_locked import API, server
from service import Service, repository, running
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.ledger import Ledger

APPS = 20
APPROVED = 5  # every fifth release waits for an approval
PATIENCE = 600.0  # seconds
SETTINGS = """
app: {name}
checks: {{a: "true", b: "true"}}
run: exec python3 app.py
environments:
  production: {{target: process/production, stop_grace: 2s, drain: 1s, approval: {approval}}}
"""


class HalfBusy:
    """Answers 503 to a random half of all calls, before or after the server has handled them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        busy = PlainTextResponse("busy", 503)
        if scope["type"] != "http" or scope["path"].endswith("/health") or random.random() < 0.5:
            await self._app(scope, receive, send)
            return
        if random.random() < 0.5:

            async def lose(_: Message) -> None:
                """The answer."""

            await self._app(scope, receive, lose)
        await busy(scope, receive, send)


def app() -> ASGIApp:
    """For uvicorn's --factory."""
    from headway.service.prefect.server import app as prefect

    return HalfBusy(prefect())


def run() -> dict[str, dict[str, float | str]]:
    """Figures without and with the layer."""
    return {
        "undisturbed": _measure("headway.service.prefect.server:app"),
        "half of all calls fail": _measure("busy_server:app"),
    }


def _measure(program: str) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as place, server(Path(place), program), _service() as service:
        apps = [_app(service, number) for number in range(APPS)]
        begun = time.monotonic()
        with ThreadPoolExecutor(APPS) as pool:
            seconds = sorted(pool.map(lambda name: _release(service, name), apps))
        took = time.monotonic() - begun
        with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
            releases = ledger.releases.recent(limit=2 * APPS)
        states = Counter(release.state for release in releases)
        return {
            "releases": len(releases),
            "not succeeded": len(releases) - states["succeeded"],
            "reasons": "; ".join(release.summary for release in releases if release.state != "succeeded"),
            "seconds": round(took, 1),
            "median release s": round(seconds[len(seconds) // 2], 1),
        }


@contextmanager
def _service() -> Iterator[Service]:
    os.environ["PREFECT_API_URL"] = API
    try:
        with running() as service:
            yield service
    finally:
        del os.environ["PREFECT_API_URL"]


def _app(service: Service, number: int) -> str:
    name = f"app{number}"
    settings = SETTINGS.format(name=name, approval="true" if number % APPROVED == 0 else "false")
    repository(service.place / name, {"headway.yaml": settings, "app.py": APP})
    return name


def _release(service: Service, name: str) -> float:
    """Release by the command line, and approve if it waits; returns seconds until the end."""
    begun = time.monotonic()
    done = _headway(service, "release", str(service.place / name))
    if done.returncode == 3:
        approved = _headway(service, "approve", f"{name}#1")
        if approved.returncode:
            print(name, approved.stderr[-300:], file=sys.stderr)
        with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
            while ledger.releases.find(f"{name}#1").open and time.monotonic() - begun < PATIENCE:
                time.sleep(0.5)
    elif done.returncode:
        print(name, done.stdout[-300:], done.stderr[-300:], file=sys.stderr)
    return time.monotonic() - begun


def _headway(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [service.headway, *arguments]
    return subprocess.run(
        command, env=service.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


APP = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
