"""Readiness checks of the repository's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway import config
from headway.policy.readiness import repository_checks
from tests.standins.repositories import Repository

POOR = "app: shop\nrun: x\nenvironments:\n  production: {target: process/p}\n"
RICH = """
app: shop
run: x
checks: {unit: {run: pytest, reports: junit.xml}}
env: {LEVEL: {default: info}}
resources: {cpu: 500m, memory: 256Mi}
environments:
  production:
    target: process/p
    instances: 2
    strategy: {rolling: {analysis: {window: 5s, min_requests: 20, success_rate: ">= 99"}}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def examined(place: Repository) -> dict[str, tuple[bool | None, str]]:
    found = repository_checks.examine(place.path, config.load(place.path), "production")
    return {name: (finding.passes, finding.evidence) for name, finding in found.items()}


def test_empty_repository_fails_the_checks(place: Repository) -> None:
    place.commit(headway_dot_yaml=POOR)
    assert examined(place) == {
        "tests": (False, "headway.yaml has no checks"),
        "secrets": (True, "none found in what is committed"),
        "configuration": (False, "headway.yaml has no env schema"),
        "limits": (False, "resources: no cpu and no memory"),
        "scaling": (False, "one instance"),
        "metrics": (False, "strategy rolling without an analysis"),
        "runbook": (False, "no RUNBOOK* and no docs/runbook*"),
    }


def test_complete_repository_passes_the_checks(place: Repository) -> None:
    place.commit(headway_dot_yaml=RICH, docs__runbook_dot_md="# What to do")
    assert examined(place) == {
        "tests": (True, "checks with a report: unit"),
        "secrets": (True, "none found in what is committed"),
        "configuration": (True, "env: 1 variables"),
        "limits": (True, "resources: cpu and memory"),
        "scaling": (True, "2 instances"),
        "metrics": (True, "every rollout is analysed"),
        "runbook": (True, "docs/runbook.md"),
    }


def test_files_excluded_in_headway_yaml_do_not_count(place: Repository) -> None:
    key = "KEY = 'AKIA" + "QYLPMN5HHHFPZAM2'\n"
    place.commit(headway_dot_yaml=POOR, tests__keys_dot_py=key)
    assert examined(place)["secrets"] == (False, "tests/keys.py:1: AWS Access Key")
    harmless = "secret_scan: {exceptions: {tests/: keys of a service that the tests start}}\n"
    place.commit(headway_dot_yaml=POOR + harmless)
    assert examined(place)["secrets"] == (True, "none found in what is committed")


def test_image_with_unpinned_versions_fails(place: Repository) -> None:
    image = POOR.replace("run: x", "build: {image: ghcr.io/acme/shop}").replace("process/p", "docker/p")
    place.commit(headway_dot_yaml=image, Dockerfile="FROM python\nCMD python app.py\n", _dot_dockerignore=".git\n")
    passes, evidence = examined(place)["image"]
    assert not passes
    assert evidence.startswith("Dockerfile:1: DL3006")
