"""Every command on the pages of "Getting started" works as written."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
from ruamel.yaml import YAML

from headway.build.dockerfiles import lint
from headway.cli.main import app
from tests.docs.pages import Sandbox

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "getting-started"
KUBERNETES = "1.33"


@pytest.mark.e2e
def test_a_laptop_a_first_release_and_a_first_rollback(sandbox: Sandbox) -> None:
    for page in ("laptop.md", "first-release.md", "first-rollback.md"):
        sandbox.follow(PAGES / page)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a clone of the repository has."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.split("\0")
    place = tmp_path / "headway"
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def follow(page: str, checkout: Path) -> None:
    path = f"{ROOT / '.uv' / 'bin'}:{os.environ['PATH']}"
    if shutil.which("uv", path=path) is None:
        pytest.skip("no uv on this machine: make installs it")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("UV_PROJECT", "VIRTUAL_ENV"))}
    Sandbox(checkout, {**ours, "PATH": path}, {"/opt/headway": str(checkout.parent / "opt")}).follow(PAGES / page)


@pytest.mark.e2e
def test_a_server(checkout: Path) -> None:
    follow("server.md", checkout)

    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(checkout / "headway.service")
    program, command = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).is_file()
    group: Any = typer.main.get_command(app)
    assert command in group.commands
    settings = dict(line.split("=", 1) for line in (checkout / "headway.env").read_text().splitlines())
    assert set(settings) == {"HEADWAY_HOME", "HEADWAY_LEDGER_URL"}
    subprocess.run(["sh", "-n", checkout / "headway-as-service"], check=True, timeout=30)


@pytest.mark.e2e
def test_kubernetes(checkout: Path) -> None:
    follow("kubernetes.md", checkout)

    for thing in YAML(typ="safe").load_all(checkout / "headway.k8s.yaml"):
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
    of_the_image = [one for one in lint(checkout) if one.file == "Dockerfile" and one.level == "error"]
    assert of_the_image == []
    assert list((checkout / "dist").glob("headway-*.whl"))
