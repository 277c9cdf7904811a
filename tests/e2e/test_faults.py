"""Faults of a canary under load: outcome of the release, serving revision, recorded failed requests."""

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

import httpx
import psutil
import pytest

from headway.ledger import ReleaseRecord, RolloutRecord, StepRecord
from headway.rollout import load_generator as loads
from headway.rollout.load_generator import Load
from tests.e2e.conftest import APP, Headway, Repo, Up

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
health: {{startup: 8s, timeout: 1s}}
http: {{retry: %(retry)s}}
environments:
  production:
    target: process/production
    instances: 2
    stop_grace: 1s
    drain: 1s
    progress_deadline: %(deadline)s
    strategy:
      canary:
        steps: [%(steps)s]
        analysis: {{window: %(window)s, min_requests: 20, false_rollback: 1%%%(more)s}}
"""
PATIENCE = 2.0  # seconds a user waits for an answer

# Each is a whole app: what it does some seconds after it was started, when it is ready and has users.
LATER = """
import os, threading, time
begun = time.monotonic()

def late():
    return time.monotonic() - begun > 2.5
"""
NO_ANSWER = {
    "hangs": "def answer(path):\n    time.sleep(600 if late() else 0)\n    return 200, {}\n",
    "hangs-but-for-health": """
def answer(path):
    time.sleep(600 if late() and path != '/health' else 0)
    return 200, {}
""",
}
CRASHES = {
    "crashes-again-and-again": """
import random
threading.Timer(random.uniform(1.5, 3.5), os._exit, (3,)).start()
def answer(path):
    return 200, {}
""",
    "leaks": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
kept = []
def answer(path):
    try:
        kept.append(bytearray((16 << 20) if path != '/health' else 1))
    except MemoryError:
        os._exit(137)
    return 200, {}
""",
}
ANSWERS = {
    "errors-for-20-percent": """
import random
def answer(path):
    return (500 if path != '/health' and random.random() < 0.2 else 200), {}
""",
    "errors-but-for-health": "def answer(path):\n    return (200 if path == '/health' else 500), {}\n",
}
UNHEALTHY = "def answer(path):\n    return (500 if late() and path == '/health' else 200), {}\n"
# One of its instances, the first to be started, breaks off every request; the retry goes to the other one.
BREAKS_OFF = """
import pathlib
try:
    pathlib.Path({marker!r}).mkdir()
    broken = True
except FileExistsError:
    broken = False
class BrokenOff(Exception):
    pass
def answer(path):
    if broken and path != '/health':
        sys.stderr = open(os.devnull, 'w')
        raise BrokenOff
    return 200, {{}}
"""
SLOW = "def answer(path):\n    time.sleep(0.3 if path != '/health' else 0)\n    return 200, {}\n"
NEW = "    return 200, {'new': True}"


@contextmanager
def under_load(
    headway: Headway, tmp_path: Path, name: str, app: str | None = None, workers: int = 24, **settings: str
) -> Iterator[tuple[Repo, Load, str]]:
    """A good version is live under load; yields its revision."""
    chosen = {"deadline": "20s", "steps": "20%, 100%", "window": "5s", "more": "", "retry": "0"} | settings
    repo = Repo(tmp_path / "app", name, SETTINGS % chosen)
    if app is not None:
        repo.commit("as it is", {"app.py": app + APP})
    headway.release(repo.path)
    stable = headway.ledger.rollouts.live(name, "production")
    assert stable is not None
    with Load(headway.url(name, "production"), rate=150, workers=workers) as load:
        yield repo, load, stable


def answering(headway: Headway, app: str, number: int = 40) -> list[str]:
    """Revisions that responded to this many requests; "" for an error."""
    found = []
    with httpx.Client(base_url=headway.url(app, "production"), trust_env=False, timeout=PATIENCE) as client:
        for _ in range(number):
            try:
                answer = client.get("/")
            except httpx.HTTPError:
                found.append("")
                continue
            found.append(answer.headers.get("x-headway-revision", "") if answer.status_code == 200 else "")
    return found


def rollout_of(headway: Headway, release: str) -> RolloutRecord:
    return next(one for one in headway.ledger.rollouts.by_release(release) if one.kind == "release")


def steps(headway: Headway, release: str, word: str) -> list[StepRecord]:
    """Journal entries of the rollout's steps whose titles begin with this word."""
    return [one for one in headway.ledger.rollouts.steps(rollout_of(headway, release).id) if one.title.startswith(word)]


def failed(headway: Headway, release: str) -> int:
    """Requests of users that failed, of all rollouts of the release."""
    rollouts = headway.ledger.rollouts.by_release(release)
    return sum(step.failed or 0 for rollout in rollouts for step in headway.ledger.rollouts.steps(rollout.id))


def agrees(record: int, load: int) -> bool:
    """Equal within a factor of 2, plus a few requests in flight at the time of the reading."""
    return record <= 2 * load + 5 and load <= 2 * record + 5


def started(headway: Headway, repo: Repo) -> ReleaseRecord:
    run = headway.start(repo.path)
    record: ReleaseRecord = headway.until(lambda: headway.ledger.releases.by_run(run))
    return record


def ended(headway: Headway, release: ReleaseRecord) -> ReleaseRecord:
    record: ReleaseRecord = headway.until(
        lambda: (now := headway.ledger.releases.get(release.id)) and not now.open and now, 120
    )
    return record


def judged(headway: Headway, release: ReleaseRecord) -> str:
    """Wait until the canary has its first users and is being watched; its revision."""

    def watched() -> bool:
        rollouts = [one for one in headway.ledger.rollouts.by_release(release.id) if one.kind == "release"]
        return bool(rollouts) and any(
            one.title.startswith("analyze") for one in headway.ledger.rollouts.steps(rollouts[0].id)
        )

    headway.until(watched)
    return rollout_of(headway, release.id).plan.new


def instances(up: Up, revision: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            told = process.environ()
            ours = told.get("HEADWAY_SUPERVISED_BY", "").startswith(str(up.home))
            if ours and told.get("HEADWAY_REVISION") == revision and "app.py" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def edge(up: Up, app: str) -> psutil.Process:
    """The Envoy of the app in production."""
    place = str(up.home / "targets" / "production" / "apps" / app / "envoy")
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if command and "envoy" in Path(command[0]).name and place in " ".join(command):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"{app} has no Envoy")


def goes_back(headway: Headway, repo: Repo, stable: str, app: str) -> str:
    """Release this app. The judge finds it out before it has all users, and the old one serves; the release's id."""
    repo.commit("break", {"app.py": LATER + app + APP})
    told = json.loads(headway.run("release", repo.path, "--json", code=None).stdout)
    assert told["state"] == "rolled_back", (told["reason"], told["users"])
    assert set(answering(headway, repo.app)) == {stable}
    assert [step.outcome for step in steps(headway, told["id"], "analyze")] == ["failed"], told["reason"]
    return str(told["id"])


def test_canary_that_never_becomes_ready_gets_no_users(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "never") as (repo, load, stable):
        repo.commit("crash", {"app.py": "raise SystemExit('no such table: users')\n"})
        told = headway.release(repo.path, code=1)
        assert set(answering(headway, repo.app)) == {stable}
    assert told["state"] == "rolled_back"
    assert "no such table: users" in told["reason"]
    assert load.failures == []
    assert failed(headway, told["id"]) == 0


@pytest.mark.parametrize("fault", CRASHES)
def test_crashing_canary_rolls_back(headway: Headway, tmp_path: Path, fault: str) -> None:
    with under_load(headway, tmp_path, fault) as (repo, load, stable):
        release = goes_back(headway, repo, stable, CRASHES[fault])
    assert load.failed < 0.2 * load.sent
    assert agrees(failed(headway, release), load.failed), (failed(headway, release), load.failed)


def test_canary_with_failures_hidden_by_retries_rolls_back(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "breaks-off", retry="2") as (repo, load, stable):
        release = goes_back(headway, repo, stable, BREAKS_OFF.format(marker=str(tmp_path / "first")))
    rollout = rollout_of(headway, release)
    (_, last) = headway.ledger.readings.by_rollout(rollout.id)[-1]
    assert last.counts[rollout.plan.new].errors > 0, last.counts  # "before any retry hid them", as Counts says
    assert load.failures == []
    assert failed(headway, release) == 0


@pytest.mark.parametrize("fault", NO_ANSWER)
def test_hanging_canary_rolls_back(
    headway: Headway, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "TIMEOUT", PATIENCE)
    with under_load(headway, tmp_path, fault, workers=60) as (repo, load, stable):
        release = goes_back(headway, repo, stable, NO_ANSWER[fault])
    assert 0 < load.failed < 0.3 * load.sent
    assert agrees(failed(headway, release), load.failed), (failed(headway, release), load.failed)


@pytest.mark.parametrize("fault", ANSWERS)
def test_canary_with_error_responses_rolls_back(headway: Headway, tmp_path: Path, fault: str) -> None:
    with under_load(headway, tmp_path, fault) as (repo, load, stable):
        release = goes_back(headway, repo, stable, ANSWERS[fault])
    assert 0 < load.failed < 0.2 * load.sent
    assert failed(headway, release) > 0
    assert agrees(failed(headway, release), load.failed), (failed(headway, release), load.failed)


def test_slow_canary_rolls_back(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "slow") as (repo, load, stable):
        release = goes_back(headway, repo, stable, SLOW)
    assert "slower than stable's p" in headway.ledger.releases.get(release).reason
    assert load.failures == []
    assert failed(headway, release) == 0


def test_canary_with_failing_health_checks_rolls_back(headway: Headway, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "unhealthy") as (repo, load, stable):
        release = goes_back(headway, repo, stable, UNHEALTHY)
    assert load.failed < 0.2 * load.sent
    assert agrees(failed(headway, release), load.failed), (failed(headway, release), load.failed)


def test_stable_version_dies_during_the_canary(headway: Headway, up: Up, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "stable-dies") as (repo, load, stable):
        repo.behave(NEW)
        release = started(headway, repo)
        new = judged(headway, release)
        dying = instances(up, stable)
        assert len(dying) == 2
        for process in dying:
            process.kill()
        closed = ended(headway, release)
        assert set(answering(headway, repo.app)) == {new}
    assert closed.state == "succeeded", closed.reason
    assert load.failed < 0.3 * load.sent
    assert agrees(failed(headway, release.id), load.failed), (failed(headway, release.id), load.failed)


def test_stable_version_dies_during_the_rollback(headway: Headway, up: Up, tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(3)\ndef answer(path):\n    return 200, {}\n"
    with under_load(headway, tmp_path, "both-die", slow) as (repo, load, stable):
        repo.commit("break", {"app.py": LATER + ANSWERS["errors-for-20-percent"] + APP})
        release = started(headway, repo)
        judged(headway, release)
        headway.until(lambda: any(one.outcome == "failed" for one in steps(headway, release.id, "analyze")))
        for process in instances(up, stable):
            process.kill()
        closed = ended(headway, release)
        assert closed.state == "rolled_back", closed.reason
        assert set(answering(headway, repo.app)) == {stable}
    assert load.failed < 0.5 * load.sent
    assert agrees(failed(headway, release.id), load.failed), (failed(headway, release.id), load.failed)


def test_envoy_is_killed_during_a_rollout(headway: Headway, up: Up, tmp_path: Path) -> None:
    """Envoy restarts with the same weights; the recorded counts continue."""
    some = "import random\ndef answer(path):\n    bad = {'/': 0.1, '/bad': 1}.get(path, 0)\n"
    some += "    return (500 if random.random() < bad else 200), {}\n"
    steps_ = "{{weight: 20%, pause: forever}}, 100%"
    with under_load(headway, tmp_path, "envoy-dies", some, steps=steps_, window="8s") as (repo, load, stable):
        url = headway.url(repo.app, "production")
        with httpx.Client(base_url=url, trust_env=False) as client:
            for _ in range(300):
                client.get("/bad")
        before = load.failed
        repo.commit("the same", {"note": "nothing changes"})
        release = started(headway, repo)
        new = judged(headway, release)
        first = edge(up, repo.app)
        first.kill()
        headway.until(
            lambda: (
                headway.ledger.releases.get(release.id).state == "waiting"
                or not headway.ledger.releases.get(release.id).open
            )
        )
        assert headway.ledger.releases.get(release.id).state == "waiting", headway.ledger.releases.get(
            release.id
        ).reason
        assert edge(up, repo.app).pid != first.pid
        with httpx.Client(base_url=url, trust_env=False) as client:
            shares = [client.get("/health").headers["x-headway-revision"] for _ in range(300)]
        assert set(shares) == {stable, new}
        assert 30 <= shares.count(new) <= 100  # 60 are expected
        headway.run("promote", repo.app, "production")
        closed = ended(headway, release)
        users = load.failed - before
        assert set(answering(headway, repo.app)) - {""} == {new}
    assert closed.state == "succeeded", closed.reason
    refused = sum(not failure.startswith("/: 500") for failure in load.failures)
    assert refused < 0.3 * load.sent
    # Envoy cannot have counted whom it did not hear.
    assert agrees(failed(headway, release.id), users - refused), (failed(headway, release.id), users, refused)


def test_silent_metric_source_gives_no_verdict(headway: Headway, tmp_path: Path) -> None:
    with source() as (port, silent):
        save = (
            "from blocks.metrics.prometheus import Prometheus; "
            f"Prometheus(url='http://127.0.0.1:{port}', timeout=1).save('mute', overwrite=True)"
        )
        with headway.control() as control:
            environment = {**os.environ, "PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
        subprocess.run([sys.executable, "-c", save], env=environment, check=True, timeout=60, capture_output=True)
        limit = ', metrics: {{orders: {{source: prometheus/mute, query: orders, limit: ">= 5"}}}}'
        with under_load(headway, tmp_path, "silent", more=limit, deadline="15s", window="8s") as (repo, load, stable):
            repo.behave(NEW)
            release = started(headway, repo)
            new = judged(headway, release)
            headway.until(lambda: "orders" in json.dumps(readings(headway, release)))
            silent.set()

            def asks(number: int) -> str:
                """What a person is asked in the analysis of this number."""
                stages = [one for one in headway.ledger.stages.by_release(release.id) if one.state == "waiting"]
                begun = steps(headway, release.id, "analyze")
                return stages[0].detail if stages and len(begun) == number else ""

            asked = headway.until(lambda: asks(1))
            assert "no verdict yet" in asked
            assert "Prometheus" in asked
            assert set(answering(headway, repo.app)) == {stable, new}
            headway.run("skip", repo.app, "production", "--reason", "the source is broken")
            headway.until(lambda: asks(2))
            assert set(answering(headway, repo.app)) == {new}
            headway.run("skip", repo.app, "production")
            assert ended(headway, release).state == "succeeded"
            assert set(answering(headway, repo.app)) == {new}
            assert failed(headway, release.id) == 0
            repo.behave("    return 200, {'newer': True}")
            told = headway.release(repo.path, code=1)  # no operator this time
            assert set(answering(headway, repo.app)) == {new}
    assert told["state"] == "rolled_back"
    assert "no verdict after" in told["reason"]
    assert load.failures == []


def readings(headway: Headway, release: ReleaseRecord) -> list[dict[str, float | str | None]]:
    found = headway.ledger.readings.by_rollout(rollout_of(headway, release.id).id)
    return [reading.metrics for _, reading in found if reading.metrics.get("orders") is not None]


@contextmanager
def source() -> Iterator[tuple[int, threading.Event]]:
    """A server that responds as Prometheus does, and stops responding once it is silent."""
    silent, over = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if silent.is_set():
                over.wait(60)
                return
            result = [{"metric": {}, "value": [0, "9"]}]
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, silent
        over.set()
        server.shutdown()


def test_the_run_is_killed_between_two_steps(headway: Headway, up: Up, tmp_path: Path) -> None:
    with under_load(headway, tmp_path, "killed", window="20s") as (repo, load, stable):
        repo.behave(NEW)
        release = started(headway, repo)
        new = judged(headway, release)
        headway.until(lambda: set(answering(headway, repo.app)) == {stable, new})
        for run in up.child("fork_server.py serve").children():  # forked: the flow run itself
            run.send_signal(signal.SIGKILL)
        closed = ended(headway, release)
        headway.until(lambda: not headway.ledger.rollouts.unfinished(repo.app), 120)
        assert set(answering(headway, repo.app)) == {stable}
    assert closed.state == "failed"
    assert [one.state for one in headway.ledger.rollouts.by_release(release.id)] == ["rolled_back", "done"]
    assert load.failures == []
    assert failed(headway, release.id) == 0
