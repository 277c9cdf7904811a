"""The Node and Go examples pass their own checks and report the health of their upstream."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from headway import config
from headway.domain.dependency_health import read
from tests.examples.test_dependencies import until
from tests.standins.ports import free_port

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", params=["node", "go"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built."""
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param} on this machine")
    place = tmp_path_factory.mktemp(request.param) / "app"
    shutil.copytree(EXAMPLES / f"hello-{request.param}", place)
    if install := config.load(place).build.install:
        subprocess.run(install, shell=True, cwd=place, check=True, timeout=300)
    return place


@contextmanager
def running(app: Path, **env: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {config.load(app).run}"],
        cwd=app,
        env={"PATH": os.environ["PATH"], "PORT": str(port), "HEADWAY_VERSION": "3f2a9c1", **env},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(60)


def test_example_passes_its_own_checks(app: Path) -> None:
    for check in config.load(app).checks.values():
        done = subprocess.run(check.run, shell=True, cwd=app, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


def test_health_reports_the_app_and_its_upstream(app: Path) -> None:
    with running(app) as (upstream, other):
        until(f"{upstream}/health/detailed", [])
        with running(app, UPSTREAM_URL=f"{upstream}/health") as (url, _):
            well = read(until(f"{url}/health/detailed", []))
            assert (well.version, [one.name for one in well.dependencies]) == ("3f2a9c1", ["upstream"])
            assert httpx.get(f"{url}/health", trust_env=False).json() == {"status": "ok", "version": "3f2a9c1"}
            assert httpx.get(f"{url}/nowhere", trust_env=False).status_code == 404
            other.terminate()
            other.wait(60)
            until(f"{url}/health/detailed", ["upstream"])


def test_example_exits_on_sigterm(app: Path) -> None:
    with running(app) as (url, process):
        until(f"{url}/health/detailed", [])
        process.terminate()
        assert process.wait(60) == 0
