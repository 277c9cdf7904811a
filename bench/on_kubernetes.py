"""Count requests dropped by rollouts on Kubernetes: `python bench/on_kubernetes.py --registry HOST --base IMAGE`.

The executor runs 10 rollouts each of rolling, blue-green, canary (5, 50, 100 %) and rollback on the cluster of the
current kubectl context. k6 sends 300 requests/s to the ClusterIP of the app's Service, half of them POST, over
keep-alive connections: run this on a node. Baseline, in the same run under the same load: `kubectl set image` and
`kubectl rollout undo` on one Deployment of the same app with a readiness probe, without Headway.

The time to restore runs from the start of the rollback until the Service has endpoints of the old version only. The
old revision is still warm, so the rollback is one switch of the route. `kubectl rollout undo` has to start pods.

IMAGE contains python3, for example python:3.13-slim. The Docker Engine of DOCKER_HOST builds the app on it and pushes
it to the registry at HOST; the cluster pulls from there over plain http. Exit code 1 if a request failed with Headway.
Absolute times depend on the machine. Goals: 0 failed requests, restored no later than with kubectl.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from switch import BENCH, RATE, TIMEOUT, WARM_UP, Journal, load, record

from blocks.registries.oci import Registry
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.build.docker_engine import connected
from headway.domain.plan import Pause, Plan
from headway.domain.revision import Artifact, Health, LaunchSpec, ProbeSettings, Revision
from headway.rollout.executor import RolloutContext, walk
from headway.rollout.strategies import Share, Situation, blue_green, canary, rollback, rolling

APP = "switch"
BASELINE = "bare"
STARTUP = 60.0  # seconds
INSTANCES = 3
PAUSE = 1.0  # seconds at each share of a canary
QUIET = 1.0  # seconds between two rollouts
DEADLINE = 180  # seconds for anything kubectl waits for


class Stand:
    """A namespace for the benchmark, with a first revision live in it."""

    def __init__(self, namespace: str, artifact: Artifact, registry: str) -> None:
        self.target = KubernetesTarget(namespace=namespace, registry=Registry(host=registry, plain_http=True))
        self.artifact = artifact
        self.specs: dict[str, tuple[Revision, LaunchSpec]] = {}
        self.numbers = count()
        self.restored = 0.0

    def revision(self) -> Revision:
        """A new version of the app."""
        every_second = ProbeSettings(period=1, failures=1)
        spec = LaunchSpec(
            environment="bench",
            artifact=self.artifact,
            instances=INSTANCES,
            cpu=0.2,
            health=Health(startup=STARTUP, startup_probe=every_second, readiness_probe=every_second),
            stop_grace=10,
        )
        revision = spec.revision(APP, hashlib.sha1(str(next(self.numbers)).encode()).hexdigest())
        self.specs[revision.id] = (revision, spec)
        return revision

    def situation(self, new: Revision) -> Situation:
        seen = self.target.observe(APP)
        return Situation.of(seen, new, stable=None, instances=INSTANCES, startup=STARTUP, drain=1)

    def go(self, plan: Plan) -> None:
        begun = time.monotonic()
        routed: list[float] = []

        def heard(line: str) -> None:
            if line.startswith("in force"):
                routed.append(time.monotonic() - begun)

        context = RolloutContext(
            record=record(plan), target=self.target, specs=self.specs, journal=Journal(), on_line=heard
        )
        asyncio.run(walk(context))
        self.restored = routed[0] if routed else 0.0

    def rolling(self) -> None:
        self.go(rolling(self.situation(self.revision()), max_surge=1, max_unavailable=0))

    def blue_green(self, *, keep_warm: bool = False) -> None:
        self.go(blue_green(self.situation(self.revision()), keep_warm=keep_warm, preview=True))

    def canary(self) -> None:
        shares = [Share(weight=5, then=Pause(seconds=PAUSE)), Share(weight=50, then=Pause(seconds=PAUSE))]
        self.go(canary(self.situation(self.revision()), shares=[*shares, Share(weight=100)]))

    def release_and_roll_back(self) -> None:
        """Release a new version, then roll back to the previous one, which is still warm."""
        stable = self.target.observe(APP).live
        self.blue_green(keep_warm=True)
        self.go(rollback(self.target.observe(APP), stable, instances=INSTANCES, startup=STARTUP, drain=1))

    @property
    def url(self) -> str:
        url = self.target.observe(APP).url
        assert url is not None  # something was launched
        return url


class Bare:
    """The same app without Headway: one Deployment, one Service, a readiness probe."""

    def __init__(self, namespace: str, images: tuple[str, str]) -> None:
        self.namespace = namespace
        self.images = images
        probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1}
        container = {"name": "app", "image": images[0], "readinessProbe": probe}
        labels = {"app": BASELINE}
        things: list[dict[str, Any]] = [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": BASELINE},
                "spec": {
                    "replicas": INSTANCES,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": BASELINE},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        ]
        kubectl(
            "apply",
            "-f",
            "-",
            namespace=namespace,
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}),
        )
        self.wait()

    def wait(self) -> None:
        kubectl("rollout", "status", f"deployment/{BASELINE}", f"--timeout={DEADLINE}s", namespace=self.namespace)

    def set_image(self, number: int) -> None:
        kubectl("set", "image", f"deployment/{BASELINE}", f"app={self.images[number % 2]}", namespace=self.namespace)
        self.wait()

    def undo(self) -> float:
        """Roll back to the previous version; return the seconds until that rollout is complete."""
        begun = time.monotonic()
        kubectl("rollout", "undo", f"deployment/{BASELINE}", namespace=self.namespace)
        self.wait()
        return time.monotonic() - begun

    @property
    def url(self) -> str:
        asked = ("get", "service", BASELINE, "-o", "jsonpath={.spec.clusterIP}")
        return f"http://{kubectl(*asked, namespace=self.namespace)}"


def kubectl(*words: str, namespace: str, stdin: str | None = None) -> str:
    command = ["kubectl", "--namespace", namespace, *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE + 20, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def under_load(name: str, url: str, rounds: int, work: Callable[[int], None]) -> int:
    """Call `work` `rounds` times under load; return the number of failed requests."""
    scenario: dict[str, object] = {
        "executor": "constant-arrival-rate",
        "rate": RATE,
        "duration": "2h",
        "preAllocatedVUs": 50,
        "maxVUs": 500,
    }
    with load(url, scenario) as running:
        time.sleep(WARM_UP + 1)
        begun = time.monotonic()
        for number in range(rounds):
            work(number)
            time.sleep(QUIET)
        seconds = time.monotonic() - begun
        time.sleep(TIMEOUT + 1)
        running.end(ask=True)
        counts, failures = running.counts, running.failures
    print(f"{name:22} {rounds:3} in {seconds:4.0f} s   sent {counts['sent']:6}   failed {counts['failed']}", flush=True)
    for failure in failures[:5]:
        print(f"    {failure}", flush=True)
    return counts["failed"]


def pushed(base: str, registry: str, mark: str) -> Artifact:
    """Build the app on this base image and push it to the registry."""
    repository = f"{registry}/headway-bench/app"
    with tempfile.TemporaryDirectory() as directory, connected("bench") as engine:
        place = Path(directory)
        shutil.copy(BENCH / "kubernetes_app.py", place)
        (place / "Dockerfile").write_text(
            f"FROM {base}\nLABEL mark={mark}\nCOPY kubernetes_app.py /\nUSER 10001:10001\n"
            'CMD ["python3", "-I", "-S", "/kubernetes_app.py"]\n'
        )
        for event in engine.api.build(path=directory, tag=f"{repository}:{mark}", rm=True, decode=True):
            if "error" in event:
                raise SystemExit(event["error"])
        answers = list(engine.api.push(repository, mark, stream=True, decode=True))
    digest = next((event["aux"]["Digest"] for event in answers if "aux" in event), None)
    if digest is None:
        raise SystemExit(f"not pushed: {answers[-1]}")
    return Artifact(kind="image", digest=digest, location=f"{repository}@{digest}", size=0)


@contextmanager
def namespace() -> Iterator[str]:
    name = f"headway-bench-{hashlib.sha1(str(time.time()).encode()).hexdigest()[:6]}"
    kubectl("create", "namespace", name, namespace="default")
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false", namespace="default")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--registry", required=True, help="host of a registry that the cluster pulls from")
    parser.add_argument("--base", required=True, help="an image with python3, on the Docker Engine")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    one, other = (pushed(arguments.base, arguments.registry, mark) for mark in ("one", "other"))
    rounds: int = arguments.rounds
    undone: list[float] = []
    restored: list[float] = []
    with namespace() as name:
        bare = Bare(name, (one.location, other.location))
        under_load("kubectl set image", bare.url, rounds, lambda number: bare.set_image(number + 1))
        under_load("kubectl rollout undo", bare.url, rounds, lambda _: undone.append(bare.undo()))
    with namespace() as name:
        stand = Stand(name, one, arguments.registry)
        stand.blue_green()

        def roll_back(_: int) -> None:
            stand.release_and_roll_back()
            restored.append(stand.restored)

        failed = under_load("headway rolling", stand.url, rounds, lambda _: stand.rolling())
        failed += under_load("headway blue-green", stand.url, rounds, lambda _: stand.blue_green())
        failed += under_load("headway canary", stand.url, rounds, lambda _: stand.canary())
        failed += under_load("headway rollback", stand.url, rounds, roll_back)
    ours, theirs = statistics.median(restored), statistics.median(undone)
    print(f"restored: headway median {ours:.2f} s, worst {max(restored):.2f} s; kubectl rollout undo {theirs:.2f} s")
    print(f"ratio {ours / theirs:.2f}; failed with headway: {failed}; goals: 0 failed, ratio <= 1")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
