"""Measure the time from `git push` to the start of the first check: `python bench/latency.py`.

20 pushes to a bare repository. Its post-receive hook, as printed by `headway app hook`, notifies a running `headway
up`. Baseline, alternating with it in the same run: Buildbot from PyPI, a master with web UI and a worker in their own
virtual environment, notified by Buildbot's HTTP change hook. Both check out the commit and run one command, which
records its start time. The clock starts before `git push`.
"""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from service import Service, commit, repository, running

from headway.ledger import Ledger

PUSHES = 20
PAUSE = 3.0  # seconds between two pushes: pushes within 2 s are coalesced
DEADLINE = 60.0  # seconds from a push to the start of its command
SECRET = "a secret of the bench"
SETTINGS = """
app: timed
checks: {{first: "{command}"}}
"""
BUILDBOT = ("buildbot", "buildbot-worker", "buildbot-www", "setuptools")
MASTER = """
from buildbot.plugins import changes, schedulers, steps, util, worker

command = ["sh", "-c", {command!r}]
factory = util.BuildFactory([steps.Git(repourl={repo!r}), steps.ShellCommand(command=command)])
BuildmasterConfig = {{
    "workers": [worker.Worker("one", "pass")],
    "protocols": {{"pb": {{"port": "tcp:4976:interface=127.0.0.1"}}}},
    "schedulers": [schedulers.AnyBranchScheduler(name="pushed", treeStableTimer=None, builderNames=["timed"])],
    "builders": [util.BuilderConfig(name="timed", workernames=["one"], factory=factory)],
    "www": {{"port": "tcp:4977:interface=127.0.0.1", "change_hook_dialects": {{"base": True}}}},
    "db": {{"db_url": "sqlite:///state.sqlite"}},
    "buildbotNetUsageData": None,
}}
"""
HOOK = """#!{python}
import sys, urllib.parse, urllib.request

for line in sys.stdin:
    before, after, ref = line.split()
    change = {{"revision": after, "branch": ref.removeprefix("refs/heads/"), "author": "bench", "comments": "change"}}
    change |= {{"repository": {repo!r}, "project": "timed", "files": '["n"]'}}
    body = urllib.parse.urlencode(change).encode()
    urllib.request.urlopen("http://127.0.0.1:4977/change_hook/base", body, timeout=10).read()
"""


def main() -> None:
    os.environ["HEADWAY_SECRET_TIMED_WEBHOOK"] = SECRET
    with running() as service, ExitStack() as stack:
        ours = Pushed(service.place / "headway")
        theirs = Pushed(service.place / "buildbot")
        register_with_headway(service, ours)
        start_buildbot(theirs, stack)
        report(service, ours, theirs)


class Pushed:
    """A work tree, the bare repository it is pushed to, and the start times of the command that each push starts."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.place = place
        self.bare = place / "timed.git"
        self.started = place / "started"
        self.started.touch()
        self.command = f"date +%s.%N >> {shlex.quote(str(self.started))}"
        self.tree = repository(place / "tree", {"headway.yaml": SETTINGS.format(command=self.command)})
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", self.bare], check=True)

    def hook(self, text: str) -> None:
        file = self.bare / "hooks" / "post-receive"
        file.write_text(text)
        file.chmod(0o755)

    def push(self, number: int) -> tuple[float, float]:
        """Time of the push, and start time of its command."""
        known = len(self.started.read_text().split())
        commit(self.tree, {"n": str(number)})
        begun = time.time()
        subprocess.run(["git", "push", "-q", self.bare, "main"], cwd=self.tree, check=True, capture_output=True)
        until(lambda: len(self.started.read_text().split()) > known, f"the command of push {number} to {self.bare}")
        return begun, float(self.started.read_text().split()[-1])


def until(what: Callable[[], object], name: str) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {DEADLINE:g} s: {name}")
        time.sleep(0.02)


def register_with_headway(service: Service, pushed: Pushed) -> None:
    def headway(*words: str) -> str:
        asked = [service.headway, "app", *words]
        return subprocess.run(
            asked, env=service.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    headway("add", str(pushed.bare), "--name", "timed", "--secret", "timed-webhook")
    pushed.hook(headway("hook", "timed", service.web))
    (pushed.bare / "hooks" / "headway-secret").write_text(SECRET)


def start_buildbot(pushed: Pushed, stack: ExitStack) -> None:
    """A master and a worker, as `buildbot create-master` and `buildbot-worker create-worker` make them."""
    programs = pushed.place / "environment" / "bin"
    subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
    subprocess.run([programs / "pip", "install", "-q", *BUILDBOT], check=True)
    master, worker = pushed.place / "master", pushed.place / "worker"
    subprocess.run([programs / "buildbot", "create-master", master], check=True, capture_output=True)
    (master / "master.cfg").write_text(MASTER.format(command=pushed.command, repo=str(pushed.bare)))
    made = ["create-worker", str(worker), "127.0.0.1:4976", "one", "pass"]
    subprocess.run([programs / "buildbot-worker", *made], check=True, capture_output=True)
    for program, place in (("buildbot", master), ("buildbot-worker", worker)):
        command = [str(programs / program), "start", "--nodaemon", str(place)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
    log = master / "twistd.log"
    until(lambda: log.exists() and " attached" in log.read_text(), "a worker that is attached to its master")
    pushed.hook(HOOK.format(python=sys.executable, repo=str(pushed.bare)))


def report(service: Service, ours: Pushed, theirs: Pushed) -> None:
    figures: dict[str, list[float]] = {"Buildbot": [], "Headway": []}
    parts: dict[str, list[float]] = {}
    with Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
        for number in range(-1, PUSHES):  # the first push creates mirrors and caches, and does not count
            took = {}
            for name, pushed in (("Buildbot", theirs), ("Headway", ours)):
                begun, started = pushed.push(number)
                took[name] = started - begun
            until(lambda: not ledger.releases.recent("timed", 1)[0].open, "the end of the release")
            if number >= 0:
                for name, seconds in took.items():
                    figures[name].append(seconds)
                for name, seconds in durations(ledger, service, begun, started).items():
                    parts.setdefault(name, []).append(seconds)
            time.sleep(PAUSE)
    base = statistics.median(figures["Buildbot"])
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {PUSHES} pushes; from git push to the first check"
    )
    for name, taken in figures.items():
        middle, high = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
        print(f"{name:10} p50 {middle:5.2f} s, p95 {high:5.2f} s   ratio {middle / base:.2f}")
    print("of Headway's: " + ", ".join(f"{name} {statistics.median(taken):.2f}" for name, taken in parts.items()))
    print("goal: p50 under 1.5 s")


def durations(ledger: Ledger, service: Service, begun: float, started: float) -> dict[str, float]:
    """Seconds of each phase, from the newest push to the start of its first check."""
    (push,), (release,) = ledger.deliveries.recent("timed", 1), ledger.releases.recent("timed", 1)
    with service.prefect as client:
        asked = {"flow_run_id": release.flow_run_id}
        states = client.get("/flow_run_states/", params=asked).raise_for_status().json()
    at = {state["type"]: datetime.fromisoformat(state["timestamp"]).timestamp() for state in reversed(states)}
    marks = {
        "accepted": push.received_at.timestamp(),
        "run created": at["SCHEDULED"],
        "taken by the worker": at["PENDING"],
        "begun": at["RUNNING"],
        "checked out, settings read": ledger.stages.by_release(release.id)[0].started_at.timestamp(),
        "first check": started,
    }
    before = [begun, *marks.values()]
    return {name: mark - last for (name, mark), last in zip(marks.items(), before, strict=False)}


if __name__ == "__main__":
    main()
