"""Kill -9 of each process at each moment of a release: `python bench/crash.py [--victim V]... [--moment M]...`.

One installation, whose app is under load. Each case releases a commit, kills the victim at the moment, and waits until
the release has ended, no rollout is unfinished, and one version alone answers. Prints the end state, the seconds until
then, and the failed requests of users. `everything` kills all processes of the installation, the app's included, and
starts `headway up` again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from service import PORTS, Service, commit, repository, running

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger, ReleaseRecord
from headway.rollout.load_generator import Load
from headway.service.prefect.client import Control

RATE = 50.0  # requests a second
MOMENT = 120.0  # seconds that a release may take to reach a moment
DEADLINE = 240.0  # seconds for the end of a case
GOAL = 60.0  # seconds until the final state
ENVIRONMENT = "stop_grace: 4s, drain: 1s, strategy: {canary: {steps: [{weight: 50%, pause: 4s}, 100%]}}"
SETTINGS = f"""
app: shop
checks: {{slow: sleep 4}}
build: {{install: sleep 4}}
run: exec python3 app.py
environments:
  staging: {{target: process/staging, {ENVIRONMENT}}}
  production:
    {{target: process/production, instances: 2, approval: APPROVAL, smoke: [{{get: /smoke, deadline: 8s}}],
    {ENVIRONMENT}}}
"""
APP = """
import http.server, json, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        time.sleep(4 if self.path == "/smoke" else 0)
        body = json.dumps({"version": os.environ["HEADWAY_VERSION"]}).encode()
        self.send_response(SMOKE if self.path == "/smoke" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass
class Site:
    """The installation, the app's repository, and the ledger."""

    service: Service
    repo: Path
    ledger: Ledger
    number: int = 0
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def release(self, moment: str) -> str:
        """Commit and start a release of a version that reaches the moment. Returns the flow run."""
        self.number += 1
        settings = SETTINGS.replace("APPROVAL", "true" if moment == "approval" else "false")
        smoke = 500 if moment == "mid-rollback" else 200
        app = f"SMOKE, NUMBER = {smoke}, {self.number}\n{APP}"
        commit(self.repo, {"headway.yaml": settings, "app.py": app})
        with Control(self.service.api, login=self.service.login) as control:
            return control.start("release/main", {"repo": str(self.repo), "ref": "main", "by": "bench"})

    def of(self, run: str) -> ReleaseRecord | None:
        return self.ledger.releases.by_run(run)

    def stage(self, run: str, name: str) -> str:
        release = self.of(run)
        stages = self.ledger.stages.by_release(release.id) if release else []
        return next((stage.state for stage in stages if stage.name == name), "")

    def step(self, run: str, environment: str, kind: str, words: str) -> bool:
        """Whether a step with these words is being taken in a rollout of this kind."""
        release = self.of(run)
        rollouts = self.ledger.rollouts.by_release(release.id) if release else []
        return any(
            words in step.title and step.outcome is None
            for rollout in rollouts
            if (rollout.environment, rollout.kind) == (environment, kind)
            for step in self.ledger.rollouts.steps(rollout.id)
        )

    @property
    def url(self) -> str:
        state = self.service.home / "targets" / "production" / "apps" / "shop" / "state.json"
        return f"http://127.0.0.1:{json.loads(state.read_text())['port']}"

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of this installation with these words in their command line."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environment, line = process.info["environ"] or {}, " ".join(process.info["cmdline"] or ())
            ours = str(self.service.home) in (environment.get("HEADWAY_HOME", "") + line)
            ours = ours or environment.get("HEADWAY_SUPERVISED_BY", "").startswith(str(self.service.home))
            if ours and all(word in line for word in words) and process.pid != os.getpid():
                found.append(process)
        return found


MOMENTS: dict[str, Callable[[Site, str], bool]] = {
    "checks": lambda site, run: site.stage(run, "slow") == "running",
    "build": lambda site, run: site.stage(run, "build") == "running",
    "staging": lambda site, run: site.stage(run, "staging") == "running",
    "approval": lambda site, run: (release := site.of(run)) is not None and release.state == "waiting",
    "mid-canary": lambda site, run: site.step(run, "production", "release", "pause"),
    "switched": lambda site, run: site.stage(run, "production smoke") == "running",
    "mid-rollback": lambda site, run: site.step(run, "production", "rollback", ""),
}
VICTIMS: dict[str, Callable[[Site, str], list[psutil.Process]]] = {
    "flow": lambda site, run: [
        beat
        for each, heartbeat in site.ledger.heartbeats.by_run().items()
        if each == run and psutil.pid_exists(heartbeat.process.pid)
        for beat in [psutil.Process(heartbeat.process.pid)]
    ],
    "warm": lambda site, _: site.processes("fork_server.py", "serve"),
    "worker": lambda site, _: site.processes("worker", "start"),
    "server": lambda site, _: site.processes("uvicorn", "prefect.server"),
    "web": lambda site, _: site.processes("api.http_server"),
    "controllers": lambda site, _: site.processes("controllers.runner"),
    "supervisord": lambda site, _: site.processes("supervisord", "targets/production"),
    "envoy": lambda site, _: [one for one in site.processes("envoy") if one.name().startswith("envoy")],
    "instance": lambda site, _: site.processes("python3 app.py")[:1],
    "everything": lambda site, _: site.processes(),
}


@dataclass(frozen=True)
class Case:
    """What happened in one case."""

    victim: str
    moment: str
    killed: int
    state: str
    versions: int
    seconds: float
    failed: int
    sent: int

    @property
    def good(self) -> bool:
        return self.versions == 1 and self.seconds <= GOAL and self.state not in ("running", "waiting", "never")


def case(site: Site, victim: str, moment: str) -> Case:
    """Run one case. Its last step is a wait until nothing of it is left to do."""
    run = site.release(moment)
    if not _wait(lambda: MOMENTS[moment](site, run), MOMENT):
        return Case(victim, moment, 0, "never", 0, 0.0, 0, 0)
    with Load(site.url, rate=RATE) as load:
        time.sleep(1.0)
        killed = VICTIMS[victim](site, run)
        begun = time.monotonic()
        for process in killed:
            _kill(process)
        if victim == "everything":
            site.started.append(_start(site.service))
        if moment == "approval":
            _approve(site, run)
        _wait(lambda: _is_final(site, run), DEADLINE)
        seconds = time.monotonic() - begun
        versions = {_version(site.url) for _ in range(20)}
    release = site.of(run)
    state = release.state if release else "never"
    return Case(victim, moment, len(killed), state, len(versions), round(seconds, 1), load.failed, load.sent)


def _is_final(site: Site, run: str) -> bool:
    release = site.of(run)
    ended = release is not None and not release.open and not site.ledger.rollouts.unfinished("shop")
    return ended and len({_version(site.url) for _ in range(10)} - {""}) == 1 and bool(_version(site.url))


def _version(url: str) -> str:
    try:
        return str(httpx.get(url, timeout=5.0, trust_env=False).json()["version"])
    except (httpx.HTTPError, ValueError, KeyError):
        return ""


def _approve(site: Site, run: str) -> None:
    release = site.of(run)
    assert release is not None
    command = [site.service.headway, "approve", release.name]

    def approved() -> bool:  # `headway up` may be starting
        done = subprocess.run(command, env=site.service.environment, capture_output=True, check=False)
        return done.returncode == 0

    _wait(approved, DEADLINE)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _start(service: Service) -> subprocess.Popen[bytes]:
    with (service.place / "up.log").open("a") as log:
        return subprocess.Popen(
            [service.headway, "up", "--port", PORTS[0], "--prefect-port", PORTS[1]],
            env=service.environment,
            stdout=log,
            stderr=log,
        )


def _wait(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if what():
                return True
        except HeadwayError as error:  # the ledger or the server is away for a moment
            print(f"  {error.what}", file=sys.stderr)
        time.sleep(0.1)
    return False


@contextmanager
def site() -> Iterator[Site]:
    """An installation with one live version."""
    with running() as service, Ledger.open(f"sqlite:///{service.home / 'ledger.db'}") as ledger:
        made = Site(service, repository(service.place / "shop", {"README": "shop"}), ledger)
        try:
            run = made.release("first")
            if not _wait(lambda: (release := made.of(run)) is not None and release.state == "succeeded", MOMENT):
                raise RuntimeError(f"the first release did not succeed: {made.of(run)}")
            yield made
        finally:
            for up in made.started:
                up.terminate()
                up.wait(90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim", choices=VICTIMS, action="append")
    parser.add_argument("--moment", choices=MOMENTS, action="append")
    asked = parser.parse_args()
    cases = []
    with site() as installation:
        for victim in asked.victim or VICTIMS:
            for moment in asked.moment or MOMENTS:
                one = case(installation, victim, moment)
                cases.append(one)
                print(
                    f"{victim:12} {moment:13} killed {one.killed}, {one.state}, {one.versions} version, "
                    f"{one.seconds} s, {one.failed} of {one.sent} failed",
                    flush=True,
                )
    good = sum(one.good for one in cases)
    slowest = max((one.seconds for one in cases), default=0.0)
    others = sum(one.failed for one in cases if one.victim not in ("envoy", "everything"))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores: {good} of {len(cases)} end in one version and one state within "
        f"{GOAL:g} s, slowest {slowest} s, {others} failed requests beside those of Envoy and everything"
    )


if __name__ == "__main__":
    main()
