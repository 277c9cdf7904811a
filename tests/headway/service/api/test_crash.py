"""The webhook receiver and the controllers are killed under load: no stored delivery is lost or started twice.

Real processes, a real repository and a real ledger; the Prefect API is a fake that records the runs to start.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from headway.ledger import Ledger
from tests.standins import webhook_payloads as p
from tests.standins.repositories import Repository
from tests.standins.webhook_payloads import SECRET

pytestmark = pytest.mark.slow

TAGS = 40
DEADLINE = 60.0  # seconds
SETTINGS = """
app: shop
run: serve
branch: nothing-else-is-released
on: {tags: ["v*"]}
environments:
  production: {target: process/production}
"""


class Prefect(http.server.ThreadingHTTPServer):
    """Starts one run per idempotency key, as Prefect's server does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.asked: Counter[str] = Counter()
        self._one_by_one = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api"

    def start(self, key: str, parameters: dict[str, Any]) -> str:
        with self._one_by_one:
            self.asked[key] += 1
            self.runs.setdefault(key, parameters)
            return f"run-{list(self.runs).index(key)}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Prefect

    def do_GET(self) -> None:
        match urlsplit(self.path).path.split("/")[2:]:
            case ["deployments", "name", *_]:
                self._answer({"id": "release"})
            case ["flow_runs", run]:
                state = {"name": "Running", "type": "RUNNING", "message": ""}
                self._answer({"id": run, "name": run, "state": state, "deployment_id": "release"})
            case _:
                self._answer({"detail": "not here"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/create_flow_run"):
            return self._answer({"detail": "not here"}, 404)
        return self._answer({"id": self.server.start(body["idempotency_key"], body["parameters"])})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client was killed
            super().handle()


class Web:
    """Headway's web app as `headway up` starts it, killed and started again at will."""

    def __init__(self, home: Path, api: str) -> None:
        self.socket = home / "web.sock"
        self.client = httpx.Client(base_url="http://web", transport=httpx.HTTPTransport(uds=str(self.socket)))
        self.log = home / "web.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEADWAY_"))},
            "HEADWAY_HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": api,
            "HEADWAY_SECRET_SHOP_WEBHOOK": SECRET,
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "headway.service.api.http_server", str(self.socket)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.until(lambda: self.checks().get("dispatch") == "ok")

    def checks(self) -> dict[str, str]:
        try:
            checks: dict[str, str] = self.client.get("/health").json()["checks"]
        except httpx.TransportError:
            return {}
        return checks

    def controllers(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "headway.service.controllers.runner" in child.cmdline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def until(self, what: Callable[[], Any]) -> None:
        end = time.monotonic() + DEADLINE
        while not what():
            assert time.monotonic() < end, f"did not happen within {DEADLINE:g} s:\n{self.log.read_text()}"
            time.sleep(0.02)


@pytest.fixture
def prefect() -> Iterator[Prefect]:
    with Prefect() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def web(tmp_path: Path, prefect: Prefect) -> Iterator[Web]:
    (tmp_path / "home").mkdir()
    made = Web(tmp_path / "home", prefect.url)
    made.start()
    yield made
    made.process.terminate()
    made.process.wait(DEADLINE)


@contextmanager
def sending(web: Web, sent: list[p.Sent], kept: list[str]) -> Iterator[None]:
    """Send each delivery twice, and retry until the response is 202; add its id to `kept` then."""
    over = threading.Event()

    def send(one: p.Sent) -> None:
        while not over.is_set():
            try:
                answer = web.client.post("/hooks/github", headers=one.headers, content=one.body)
            except httpx.TransportError:
                over.wait(0.05)
                continue
            assert answer.status_code == 202
            kept.append(one.headers["x-github-delivery"])
            return

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(send, one) for one in itertools.chain(*zip(sent, sent, strict=True))]
        try:
            yield
            for each in done:
                each.result(DEADLINE)
        finally:
            over.set()


def _under_way(kept: list[str], prefect: Prefect, share: float) -> bool:
    return len(set(kept)) > share * TAGS and len(prefect.runs) > share * TAGS / 2


def test_processes_killed_under_load_lose_no_delivery_and_start_none_twice(
    tmp_path: Path, web: Web, prefect: Prefect
) -> None:
    repository = Repository(tmp_path / "shop")
    shas = [repository.commit(f"change {number}", headway_dot_yaml=SETTINGS) for number in range(TAGS)]
    for number, sha in enumerate(shas):
        repository.git("tag", f"v{number}", sha)
    urls = {"clone_url": str(repository.path), "ssh_url": str(repository.path)}
    pushes = [
        p.github_push(ref=f"refs/tags/v{number}", after=sha, repository=p.GITHUB_REPOSITORY | urls)
        for number, sha in enumerate(shas)
    ]
    sent = [p.github("push", push, delivery=f"guid-{number}") for number, push in enumerate(pushes)]
    kept: list[str] = []
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        ledger.apps.register("shop", repo=str(repository.path), host="github", secret="shop-webhook", by="ann")
        with sending(web, sent, kept):
            for share, kill in ((0.2, web.kill_all), (0.6, web.kill)):
                web.until(partial(_under_way, kept, prefect, share))
                kill()
                assert {one.delivery for one in ledger.deliveries.recent("shop", 1000)} >= set(kept)
                web.start()
        web.until(lambda: not ledger.deliveries.due())

        came = ledger.deliveries.recent("shop", 1000)

    assert sorted(one.delivery for one in came) == sorted(one.headers["x-github-delivery"] for one in sent)
    assert {one.state for one in came} == {"started"}
    assert len({one.flow_run_id for one in came}) == TAGS
    assert sorted(run["ref"] for run in prefect.runs.values()) == sorted(shas)


def test_renamed_checks_keep_their_old_names_for_a_version(web: Web) -> None:
    web.until(lambda: set(web.checks()) >= {"controllers", "webhook_secrets"})
    checks = web.checks()
    assert (checks["rounds"], checks["keys"]) == (checks["controllers"], checks["webhook_secrets"])
    assert set(checks) >= {"sweep", "revive", "reports", "poll", "previews", "dispatch"}


def test_controllers_are_restarted_and_end_with_the_api_process(web: Web) -> None:
    first = web.controllers()
    first.kill()
    web.until(lambda: web.checks()["controllers"] != "ok")
    web.until(lambda: web.checks()["controllers"] == "ok")
    second = web.controllers()
    assert second != first

    web.kill()

    second.wait(DEADLINE)
