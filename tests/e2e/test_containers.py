"""From a commit to containers: image, registry and Docker Engine, through the whole pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headway.rollout.load_generator import Load
from tests.e2e.conftest import Headway, Repo, Up
from tests.standins.docker_engine import Engine
from tests.standins.registries import serving

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
checks: {{check: "true"}}
build: {{image: %(host)s/acme/{app}, registry: here}}
resources: {{cpu: 1, memory: 128Mi}}
health: {{startup: 20s}}
environments:
  preview: {{target: docker/preview, stop_grace: 1s, drain: 1s, smoke: [{{get: /, version: true, deadline: 5s}}]}}
  staging: {{target: docker/staging, stop_grace: 1s, drain: 1s, smoke: [{{get: /, version: true, deadline: 5s}}]}}
  production:
    target: docker/production
    instances: 2
    stop_grace: 1s
    drain: 2s
    strategy: {{canary: {{steps: [50%%, 100%%], analysis: {{window: 2s, success_rate: ">= 99"}}}}}}
"""
IN_PRODUCTION = "headway.environment=production"
DOCKERFILE = """
FROM headway-test/python
WORKDIR /app
COPY app.py .
USER 10001:10001
CMD ["python3", "app.py"]
"""
IGNORED = ".git\n**/.env*\n**/*.pem\n**/id_rsa*\n"
BLOCKS = """
from blocks.registries.oci import Registry
from blocks.targets.docker.target import DockerTarget
Registry(host="%(host)s", plain_http=True, timeout=5).save("here", overwrite=True)
for name in ("preview", "staging", "production"):
    DockerTarget(url="%(url)s", namespace="headway-e2e-" + name).save(name, overwrite=True)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Up]:
    """A service whose worker builds on the tests' engine."""
    engine.prepare()
    up = Up(tmp_path_factory.mktemp("containers"), DOCKER_HOST=engine.url).with_database()
    with up.running():
        yield up


@pytest.fixture
def headway(own: Up) -> Headway:
    return Headway(own)


@pytest.fixture
def host(headway: Headway, engine: Engine, tmp_path: Path) -> Iterator[str]:
    """A registry, and the blocks that know it and the engine."""
    with serving(tmp_path / "registry") as made:
        with headway.control() as control:
            environment = {**os.environ, "PREFECT_API_URL": control.url, "PREFECT_API_AUTH_STRING": headway.login}
        script = BLOCKS % {"host": made, "url": engine.url}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60, capture_output=True)
        yield made
        for container in engine.client.containers.list(all=True):
            container.remove(force=True)


def version(url: str) -> str:
    return str(httpx.get(url, trust_env=False).json()["version"])


def test_image_is_released_and_rolled_back(headway: Headway, engine: Engine, host: str, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "boxed", SETTINGS % {"host": host})
    good = repo.commit("in a box", {"Dockerfile": DOCKERFILE, ".dockerignore": IGNORED})
    first = headway.release(repo.path)
    assert first["state"] == "succeeded"
    url = headway.url("boxed", "production")
    assert version(url) == version(headway.url("boxed", "staging")) == good
    containers = engine.client.containers.list()
    assert {one.labels["headway.release"] for one in containers} == {first["name"]}
    digest = headway.ledger.releases.get(first["id"]).digest
    assert digest is not None
    assert {one.labels["headway.image"] for one in containers} == {f"{host}/acme/boxed@{digest}"}
    listed = f"http://{host}/v2/acme/boxed/manifests/{digest.replace(':', '-')}"
    accepted = {"Accept": "application/vnd.oci.image.index.v1+json"}
    statements = httpx.get(listed, headers=accepted, trust_env=False).json()
    assert {one["artifactType"] for one in statements["manifests"]} == {
        "application/vnd.cyclonedx+json",
        "application/vnd.in-toto+json",
        "application/vnd.dsse.envelope.v1+json",
    }
    with Load(url, rate=100) as load:
        newer = repo.behave("    return 200, {'new': True}")
        assert headway.release(repo.path)["state"] == "succeeded"
        assert version(url) == newer
        repo.behave(
            "    return (500 if path == '/' and 'production' in os.environ['HEADWAY_ENVIRONMENT'] else 200), {}"
        )
        told = headway.release(repo.path, code=1)
        assert told["state"] == "rolled_back"
        assert version(url) == newer
    errors = [failure for failure in load.failures if ": 500" not in failure]
    assert errors == []
    headway.run("rollback", "boxed", "production")
    assert version(url) == good


def test_failed_build_or_push_changes_nothing(headway: Headway, engine: Engine, host: str, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "unbuilt", SETTINGS % {"host": host})
    told = json.loads(headway.run("release", repo.path, "--json", code=1).stdout)
    assert "Dockerfile: not in the repository" in told["reason"]
    repo.commit("ignores", {".dockerignore": IGNORED})
    repo.commit("as root", {"Dockerfile": DOCKERFILE.replace("USER 10001:10001\n", "")})
    told = json.loads(headway.run("release", repo.path, "--json", code=1).stdout)
    assert "Dockerfile:2: HW003 the app runs as root: no USER" in told["reason"]
    assert "HW003" in headway.run("check", repo.path, code=2).stdout
    repo.commit("broken", {"Dockerfile": DOCKERFILE.replace("COPY", "RUN exit 3\nCOPY")})
    told = json.loads(headway.run("release", repo.path, "--json", code=1).stdout)
    assert "code: 3" in told["reason"]
    elsewhere = SETTINGS.replace("registry: here", "platform: linux/amd64") % {"host": "127.0.0.1:1"}
    repo.commit("nowhere", {"Dockerfile": DOCKERFILE, "headway.yaml": elsewhere.format(app="unbuilt")})
    told = json.loads(headway.run("release", repo.path, "--json", code=1).stdout)
    assert "127.0.0.1:1" in told["reason"]
    assert engine.client.containers.list(all=True) == []


def test_pull_request_has_its_own_containers(headway: Headway, engine: Engine, host: str, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "shown", SETTINGS % {"host": host})
    sha = repo.commit("in a box", {"Dockerfile": DOCKERFILE, ".dockerignore": IGNORED})
    headway.run("app", "add", repo.path, "--name", "shown")
    with headway.control() as control:
        control.start("preview/main", {"app": "shown", "number": 7, "sha": sha, "base": "main", "by": "ann"})
    url = headway.until(lambda: (shown := headway.ledger.previews.get("shown-pr-7")) and shown.url)
    assert version(url) == sha
    assert {one.labels["headway.app"] for one in engine.client.containers.list()} == {"shown-pr-7"}
    headway.run("preview", "shown", "7", "--teardown")
    assert engine.client.containers.list(all=True, filters={"label": "headway.app=shown-pr-7"}) == []
    assert "no preview environments" in headway.run("previews").stdout
    headway.run("app", "remove", "shown")


def test_containers_survive_an_engine_outage(headway: Headway, engine: Engine, host: str, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "steady", SETTINGS % {"host": host})
    good = repo.commit("in a box", {"Dockerfile": DOCKERFILE, ".dockerignore": IGNORED})
    assert headway.release(repo.path)["state"] == "succeeded"
    url = headway.url("steady", "production")
    with Load(url, rate=50) as load:
        repo.behave("    return 200, {'new': True}")
        headway.start(repo.path)
        headway.until(lambda: len(engine.client.containers.list(filters={"label": IN_PRODUCTION})) > 2)
        engine.stop(signal.SIGKILL)  # in the middle of the rollout
        (middle, *_) = headway.ledger.releases.recent("steady")
        headway.until(lambda: not headway.ledger.releases.get(middle.id).open, 120)
        assert "does not answer" in headway.ledger.releases.get(middle.id).reason
        assert "does not answer" in headway.release(repo.path, code=1)["reason"]  # not there at the start
        assert version(url) == good
    assert load.failures == []
    engine.start()  # without live-restore, dockerd stops running containers at start
    headway.until(lambda: httpx.get(url, trust_env=False).is_success)
    assert version(url) == good
    newest = repo.behave("    return 200, {'newer': True}")
    with Load(url, rate=50) as load:
        for _ in range(2):
            headway.start(repo.path)
        headway.until(lambda: len(headway.ledger.releases.recent("steady")) == 5)
        headway.until(lambda: not any(one.open for one in headway.ledger.releases.recent("steady")), 120)
    assert load.failures == []
    assert headway.ledger.releases.recent("steady")[0].state == "succeeded"
    assert version(url) == newest
    serving = engine.client.containers.list(filters={"label": [IN_PRODUCTION, "headway.app=steady"]})
    assert len({one.labels["headway.revision"] for one in serving}) == 1
    assert len(serving) == 2
