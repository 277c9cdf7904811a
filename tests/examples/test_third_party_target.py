"""A target from another package, examples/headway-bare, works once it is installed next to Headway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import SETTINGS, Headway, Repo, Up

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "headway-bare"
CLI = ["-P", "-c", "from headway.cli import main; main()"]
BARE = SETTINGS.replace("process/", "bare/")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has Headway, its dependencies and the package, installed from its wheel."""
    place = tmp_path_factory.mktemp("third-party")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", place],
        cwd=PACKAGE,
        check=True,
        capture_output=True,
        timeout=120,
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True, timeout=120)
    (packages,) = (place / "venv").glob("lib/python*/site-packages")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "headway.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return place / "venv" / "bin" / "python"


def run(python: Path, *arguments: str | Path, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [python, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env=environment()
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    """An environment without the coverage and plugin settings of this pytest run."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}


def test_third_party_target_passes_the_contract(installed: Path, tmp_path: Path) -> None:
    told = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={PACKAGE}", PACKAGE, cwd=tmp_path)
    assert "passed" in told
    assert not {"skipped", "deselected", "failed"} & set(told.split())


def test_headway_check_accepts_its_kind(installed: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "shop", BARE)
    run(installed, *CLI, "check", repo.path, cwd=tmp_path)
    repo.commit("typo", {"headway.yaml": BARE.format(app="shop").replace("bare/staging", "bear/staging")})
    told = run(installed, *CLI, "check", repo.path, cwd=tmp_path, code=2)
    assert "no platform is called 'bear' (did you mean 'bare'?); there are: bare, docker," in told


@pytest.fixture
def headway(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headway]:
    """`headway up` of that environment."""
    up = Up(tmp_path_factory.mktemp("headway")).with_database()
    up.program = [str(installed), *CLI]
    with up.running():
        yield Headway(up)
    marks = str(up.home / "targets" / "bare-")
    for process in (one for one in psutil.process_iter() if mark(one).startswith(marks)):
        process.kill()


def mark(process: psutil.Process) -> str:
    try:
        return process.environ().get("HEADWAY_BARE", "")
    except psutil.Error:
        return ""


@pytest.mark.e2e
def test_apps_are_released_to_it(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "shop", BARE)
    assert headway.release(repo.path)["state"] == "succeeded"
    repo.behave("    return 200, {'new': True}")
    assert headway.release(repo.path)["state"] == "succeeded"

    for environment in ("staging", "production"):
        state = json.loads((headway.home / f"targets/bare-{environment}/apps/shop/state.json").read_text())
        assert httpx.get(f"http://127.0.0.1:{state['port']}/", trust_env=False).json()["new"] is True
