"""A sandbox for the pages of documentation, beside a running Headway."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import Sandbox
from tests.e2e.conftest import HEADWAY, Up
from tests.standins.ports import free_port

ROOT = Path(__file__).parents[2]
APP_PORTS = ("8101", "8102")  # in headway.yaml on the pages
PERSON = {"NAME": "Ann", "EMAIL": "ann@example.com"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `headway up` for all pages of a module."""
    up = Up(tmp_path_factory.mktemp("headway")).with_database()
    with up.running():
        yield up


@pytest.fixture
def sandbox(service: Up, tmp_path: Path) -> Iterator[Sandbox]:
    """A home directory with a checkout of Headway; `headway` talks to the running service. Starts in the checkout."""
    checkout = tmp_path / "headway"
    shutil.copytree(ROOT / "examples", checkout / "examples")
    (checkout / ".venv").symlink_to(sys.prefix)
    yield Sandbox(checkout, environment(service, tmp_path), ports(service))
    service.end_targets()


def environment(service: Up, home: Path) -> dict[str, str]:
    """What a reader's shell has: Headway's commands, a home directory, a name for git."""
    ours = service.environment
    git = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in PERSON.items()}
    path = f"{Path(HEADWAY[0]).parent}:{ours['PATH']}"
    return {**ours, **git, "PATH": path, "HOME": str(home), "COLUMNS": "200"}


def ports(service: Up) -> dict[str, str]:
    """The ports that pages name, and those that the test uses instead."""
    where = json.loads((service.home / "up.json").read_text())
    prefect, headway = (str(urlsplit(where[name]).port) for name in ("api_url", "web_url"))
    return {"4200": prefect, "4300": headway, **{port: str(free_port()) for port in APP_PORTS}}
