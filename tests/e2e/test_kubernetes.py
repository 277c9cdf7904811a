"""From a commit to pods on a real cluster, and a rollback without a ledger."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from kubernetes import client

from headway.rollout.load_generator import Load
from tests.e2e import conftest
from tests.e2e.conftest import Headway, Repo, Up
from tests.e2e.test_containers import DOCKERFILE, IGNORED
from tests.standins.clusters import Borrowed, Namespace
from tests.standins.docker_engine import Engine

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
checks: {{check: "true"}}
build: {{image: %(registry)s/headway-test/{app}, registry: cluster}}
resources: {{cpu: 100m, memory: 64Mi}}
health: {{startup: 30s, probes: {{startup: {{period: 1s}}, readiness: {{period: 1s}}}}}}
env: {{TOKEN: {{secret: true, min_length: 8}}}}
environments:
  preview: {{target: kubernetes/preview, stop_grace: 1s, env: {{TOKEN: !secret boxed-token}}}}
  staging:
    target: kubernetes/staging
    stop_grace: 1s
    smoke: [{{get: /, version: true, deadline: 10s}}]
    env: {{TOKEN: !secret boxed-token}}
  production:
    target: kubernetes/production
    instances: 2
    stop_grace: 5s
    smoke: [{{get: /, version: true, deadline: 5s}}]
    strategy:
      canary:
        steps: [50%%, 100%%]
        analysis: {{window: 3s, success_rate: ">= 99", synthetic: {{requests: [{{get: /}}], rate: 20}}}}
    env: {{TOKEN: !secret boxed-token}}
"""
# There is no proxy in front of a pod: the app must close kept connections before the pod stops.
POLITE = {
    "        self.end_headers()": "        if stopping.is_set():\n"
    "            self.send_header('Connection', 'close')\n"
    "        self.end_headers()",
    "threading.Thread(target=server.shutdown).start()": "(stopping.set(), threading.Timer(2, server.shutdown).start())",
    "server = Server": "stopping = threading.Event()\nserver = Server",
}
TOKEN = "hunter2-on-a-cluster"
BLOCKS = """
from blocks.registries.oci import Registry
from blocks.targets.kubernetes.target import KubernetesTarget
registry = Registry(host="%(registry)s", plain_http=True)
registry.save("cluster", overwrite=True)
for name, namespace, kubeconfig in %(places)r:
    KubernetesTarget(namespace=namespace, kubeconfig=kubeconfig, registry=registry).save(name, overwrite=True)
"""


@pytest.fixture
def places(cluster: Borrowed, tmp_path: Path) -> Iterator[dict[str, Namespace]]:
    with ExitStack() as stack:
        names = ("preview", "staging", "production")
        yield {name: stack.enter_context(cluster.namespace(tmp_path)) for name in names}


@pytest.fixture
def own(places: dict[str, Namespace], engine: Engine, tmp_path: Path) -> Iterator[Up]:
    """A service that knows a registry, and a namespace for each environment."""
    engine.prepare()
    (tmp_path / "home").mkdir()
    up = Up(tmp_path / "home", DOCKER_HOST=engine.url, HEADWAY_SECRET_BOXED_TOKEN=TOKEN)
    with up.running():
        headway = Headway(up)
        with headway.control() as control:
            environment = {**os.environ, "PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
        told = [(name, place.name, str(place.kubeconfig)) for name, place in places.items()]
        script = BLOCKS % {"registry": places["staging"].registry, "places": told}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)
        yield up


def app(answer: str) -> str:
    code = conftest.APP
    for old, new in POLITE.items():
        assert old in code
        code = code.replace(old, new)
    return f"def answer(path):\n    {answer}\n{code}"


def version(url: str) -> str:
    return str(httpx.get(url, trust_env=False).json()["version"])


def test_release_to_a_cluster_and_rollback_without_a_ledger(
    own: Up, places: dict[str, Namespace], tmp_path: Path
) -> None:
    headway = Headway(own)
    repo = Repo(tmp_path / "app", "boxed", SETTINGS % {"registry": places["staging"].registry})
    files = {"Dockerfile": DOCKERFILE, ".dockerignore": IGNORED}
    good = repo.commit("in a box", {**files, "app.py": app("return 200, {}")})
    assert headway.release(repo.path)["state"] == "succeeded"
    url = re.findall(r"at (http://\S+)", headway.run("status", "boxed", "--live").stdout)[-1]
    assert version(url) == good

    with Load(url, rate=50) as load:
        said = "print('asked with', os.environ['TOKEN'], flush=True)"
        newer = repo.commit("says more", {"app.py": app(f"{said}\n    return 200, {{}}")})
        assert headway.release(repo.path)["state"] == "succeeded"
        assert version(url) == newer
    assert load.failures == []
    assert "********" in headway.run("logs", "boxed", "production").stdout

    bad = "return (500 if path == '/' and os.environ['HEADWAY_ENVIRONMENT'] == 'production' else 200), {}"
    repo.commit("bad", {"app.py": app(bad)})
    with Load(url, rate=50) as load:
        assert headway.release(repo.path, code=1)["state"] == "rolled_back"
        assert version(url) == newer
    assert [one for one in load.failures if ": 500" not in one] == []

    headway.run("app", "add", repo.path, "--name", "boxed")
    with headway.control() as control:
        control.start("preview/main", {"app": "boxed", "number": 7, "sha": newer, "base": "main", "by": "ann"})
    preview = headway.until(lambda: (shown := headway.ledger.previews.get("boxed-pr-7")) and shown.url, 120)
    assert version(preview) == newer
    headway.run("preview", "boxed", "7", "--teardown")
    left = client.AppsV1Api(places["preview"].api).list_namespaced_deployment(places["preview"].name)
    assert left.items == []

    seen = headway.run("status", "boxed", "--live").stdout
    assert "Deployment boxed-" in seen
    assert "2 of 2 ready" in seen

    headway.ledger.close()
    own.stop()
    for file in own.home.glob("ledger.db*"):
        file.unlink()
    own.start()
    headway = Headway(own)
    assert newer[:7] in headway.run("adopt", "boxed", "kubernetes/production").stdout
    with Load(url, rate=50) as load:
        headway.run("rollback", "boxed", "production")
        assert version(url) == good
    assert load.failures == []
    assert not any(TOKEN.encode() in one.read_bytes() for one in (own.home / "logs").glob("*.log"))
