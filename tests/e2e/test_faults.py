"""A canary that breaks in every way, under load: who serves afterwards, and what the record says it cost."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headway.ledger import ReleaseRecord
from headway.load import Load
from tests.e2e.conftest import Headway, Repo, Up

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
health: {{startup: 8s}}
environments:
  production:
    target: process/production
    instances: 2
    stop_grace: 1s
    drain: 1s
    progress_deadline: 25s
    strategy:
      canary:
        steps: [20%, 100%]
        analysis: {{window: 6s, min_requests: 20, false_rollback: 1%{more}}}
"""
# What the canary does some time after it was ready, from its first request on.
LATER = """    global begun
    begun = globals().get('begun') or time.monotonic()
    late = time.monotonic() - begun > 1.5
"""
FAULTS = {
    "crashes-again-and-again": LATER.replace("1.5", "0.8") + "    os._exit(3) if late else None\n    return 200, {}",
    "leaks-until-it-is-killed": """    import resource
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
    try:
        globals().setdefault('kept', []).append(bytearray(4 << 20))
    except MemoryError:
        os._exit(137)
    return 200, {}""",
    "hangs": LATER + "    time.sleep(600) if late else None\n    return 200, {}",
    "answers-500-for-20-percent": """    import random
    return (500 if path != '/health' and random.random() < 0.2 else 200), {}""",
    "fails-everything-but-health": "    return (200 if path == '/health' else 500), {}",
}
SLOW = "    time.sleep(0.3 if path != '/health' else 0)\n    return 200, {}"
UNHEALTHY = LATER + "    return (500 if late and path == '/health' else 200), {}"


@contextmanager
def under_load(headway: Headway, tmp_path: Path, name: str, more: str = "") -> Iterator[tuple[Repo, Load]]:
    """A good version is live, and users are there."""
    repo = Repo(tmp_path / "app", name[:40], SETTINGS.replace("{more}", more))
    headway.release(repo.path)
    with Load(headway.url(repo.app, "production"), rate=100, workers=16) as load:
        yield repo, load


def versions(headway: Headway, app: str) -> set[str]:
    url = headway.url(app, "production")
    return {httpx.get(url, trust_env=False).headers["x-headway-revision"] for _ in range(30)}


def instances(up: Up, revision: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            ours = environment.get("HEADWAY_SUPERVISED_BY", "").startswith(str(up.home))
            if ours and environment.get("HEADWAY_REVISION") == revision and "app.py" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def canary_at(headway: Headway, app: str, weight: int) -> str:
    """Wait until the new revision has this share; its id."""

    def found() -> str | None:
        rollouts = headway.ledger.unfinished_rollouts(app, "production")
        if not rollouts or rollouts[-1].kind != "release":
            return None
        wanted = f"route {rollouts[-1].plan.new} {weight} %"
        steps = [step for step in headway.ledger.steps(rollouts[-1].id) if step.outcome == "done"]
        return rollouts[-1].plan.new if any(step.title.startswith(wanted) for step in steps) else None

    return str(headway.until(found))


def ended(headway: Headway, release: ReleaseRecord) -> ReleaseRecord:
    record: ReleaseRecord = headway.until(
        lambda: (found := headway.ledger.release(release.id)) and not found.open and found, 120
    )
    return record


def started(headway: Headway, repo: Repo) -> ReleaseRecord:
    run = headway.start(repo.path)
    record: ReleaseRecord = headway.until(lambda: headway.ledger.release_of_run(run))
    return record


def recorded(headway: Headway, release: str) -> int:
    users = headway.ledger.users(release)
    assert users is not None
    assert users.requests > 100
    return users.failed


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_canary_goes_back_and_the_record_says_what_it_cost(
    headway: Headway, tmp_path: Path, fault: str
) -> None:
    with under_load(headway, tmp_path, fault) as (repo, load):
        stable = headway.ledger.live(repo.app, "production")
        repo.behave(FAULTS[fault])
        told = headway.release(repo.path, code=1)
        assert told["state"] == "rolled_back"
        assert versions(headway, repo.app) == {stable}
    failed = recorded(headway, told["id"])
    assert load.failed < 0.2 * load.sent
    # Requests that were in flight when somebody looked are counted by one and not yet by the other.
    assert abs(failed - load.failed) <= 5 + 0.2 * load.failed
    if fault in ("answers-500-for-20-percent", "fails-everything-but-health"):
        assert failed > 0


def test_a_canary_that_never_gets_ready_has_no_users(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "crashes-at-once") as (repo, load):
        stable = headway.ledger.live(repo.app, "production")
        repo.commit("crash", {"app.py": "raise SystemExit('no such table: users')\n"})
        told = headway.release(repo.path, code=1)
        assert versions(headway, repo.app) == {stable}
    assert told["state"] == "rolled_back"
    assert "no such table: users" in told["reason"]
    assert load.failures == []
    assert recorded(headway, told["id"]) == 0


def test_a_slow_canary_is_found_by_comparison(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "slow") as (repo, load):
        stable = headway.ledger.live(repo.app, "production")
        repo.behave(SLOW)
        told = headway.release(repo.path, code=1)
        assert versions(headway, repo.app) == {stable}
    assert told["state"] == "rolled_back"
    assert "slower than stable's p" in told["reason"]
    assert load.failures == []
    assert recorded(headway, told["id"]) == 0


def test_a_canary_whose_health_fails_gets_no_users(headway: Headway, tmp_path: Path) -> None:
    """Envoy takes its instances out; with nobody left to answer it is the worse one."""
    with under_load(headway, tmp_path, "unhealthy") as (repo, load):
        stable = headway.ledger.live(repo.app, "production")
        repo.behave(UNHEALTHY)
        told = headway.release(repo.path, code=1)
        assert versions(headway, repo.app) == {stable}
    assert told["state"] == "rolled_back"
    assert load.failed < 0.2 * load.sent
    assert abs(recorded(headway, told["id"]) - load.failed) <= 5 + 0.2 * load.failed


def test_the_stable_version_dies_during_the_canary(headway: Headway, up: Up, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "stable-dies") as (repo, load):
        stable = str(headway.ledger.live(repo.app, "production"))
        repo.behave("    return 200, {'new': True}")
        release = started(headway, repo)
        new = canary_at(headway, repo.app, 20)
        dying = instances(up, stable)
        assert len(dying) == 2
        for process in dying:
            process.kill()
        closed = ended(headway, release)
        live = headway.until(lambda: not headway.ledger.unfinished_rollouts(repo.app) and versions(headway, repo.app))
    assert closed.state == "succeeded", closed.reason  # the canary is the better one, and the dead are started again
    assert live == {new}
    assert load.failed < 0.5 * load.sent
    assert abs(recorded(headway, release.id) - load.failed) <= 5 + 0.2 * load.failed


def test_envoy_is_killed_in_mid_walk(headway: Headway, up: Up, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "envoy-dies") as (repo, load):
        repo.behave("    return 200, {'new': True}")
        release = started(headway, repo)
        new = canary_at(headway, repo.app, 20)
        place = str(up.home / "targets" / "production" / "apps" / repo.app)
        edges = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "envoy" in (process.info["cmdline"] or [""])[0] and place in " ".join(process.info["cmdline"])
        ]
        assert len(edges) == 1
        edges[0].kill()
        url = headway.url(repo.app, "production")

        def seen() -> list[str]:
            try:
                return [httpx.get(url, trust_env=False).headers["x-headway-revision"] for _ in range(100)]
            except httpx.HTTPError:
                return []

        shares = headway.until(seen)
        if headway.ledger.unfinished_rollouts(repo.app) and "100 %" not in str(headway.ledger.steps(release.id)):
            assert 4 <= shares.count(new) <= 45 or shares.count(new) == 100  # 20 % of 100, or promoted by now
        closed = ended(headway, release)
        assert versions(headway, repo.app) == {new}
    assert closed.state == "succeeded", closed.reason
    assert load.failed < 0.5 * load.sent


def test_a_metric_source_that_goes_silent_is_no_verdict(headway: Headway, tmp_path: Path) -> None:
    with source() as (port, answers):
        save = (
            "from blocks.metrics.prometheus import Prometheus; "
            f"Prometheus(url='http://127.0.0.1:{port}', timeout=1).save('silent', overwrite=True)"
        )
        with headway.control() as control:
            environment = {**os.environ, "PREFECT_API_URL": control.url}
        subprocess.run([sys.executable, "-c", save], env=environment, check=True, timeout=60, capture_output=True)
        limit = ', metrics: {{orders: {{source: prometheus/silent, query: orders, limit: ">= 5"}}}}'
        with under_load(headway, tmp_path, "silent", limit) as (repo, load):
            stable = headway.ledger.live(repo.app, "production")
            repo.behave("    return 200, {'new': True}")
            release = started(headway, repo)
            new = canary_at(headway, repo.app, 20)
            answers.clear()
            asking = headway.until(
                lambda: next((one for one in headway.ledger.stages(release.id) if one.state == "waiting"), None), 60
            )
            assert "no verdict yet" in asking.detail
            assert "Prometheus" in asking.detail
            assert versions(headway, repo.app) == {stable, new}
            headway.run("promote", repo.app, "production", "--by", "ann")
            assert ended(headway, release).state == "succeeded"
            assert versions(headway, repo.app) == {new}
            repo.behave("    return 200, {'newer': True}")
            told = headway.release(repo.path, code=1)  # nobody is there this time
            assert versions(headway, repo.app) == {new}
    assert told["state"] == "rolled_back"
    assert "no verdict after" in told["reason"]
    assert load.failures == []


@contextmanager
def source() -> Iterator[tuple[int, list[float]]]:
    """Something that answers as Prometheus does, and 500 once it has nothing more to say."""
    answers = [9.0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            result = [{"metric": {}, "value": [0, str(answers[0])]}] if answers else None
            said: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
            body = json.dumps(said).encode() if answers else b"gone"
            self.send_response(200 if answers else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, answers
        server.shutdown()


def test_the_run_is_killed_between_two_steps(headway: Headway, up: Up, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "killed") as (repo, load):
        stable = headway.ledger.live(repo.app, "production")
        repo.behave("    return 200, {'new': True}")
        release = started(headway, repo)
        canary_at(headway, repo.app, 20)
        for run in up.child("warm.py serve").children():  # forked: the flow run itself
            run.send_signal(signal.SIGKILL)
        ended(headway, release)
        headway.until(lambda: not headway.ledger.unfinished_rollouts(repo.app), 120)
        assert versions(headway, repo.app) == {stable}
    assert load.failures == []
    assert recorded(headway, release.id) == 0
