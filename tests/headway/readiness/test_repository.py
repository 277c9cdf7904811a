"""What a repository shows, and what scanners say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway import settings
from headway.readiness import repository, vulnerabilities
from tests.headway.repositories import Repository

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


def examined(place: Repository) -> dict[str, tuple[bool, str]]:
    found = repository.examine(place.path, settings.load(place.path), "production")
    return {name: (finding.passes, finding.evidence) for name, finding in found.items()}


def test_a_repository_that_says_little(place: Repository) -> None:
    place.commit(headway_dot_yaml=POOR)
    assert examined(place) == {
        "tests": (False, "headway.yaml has no checks"),
        "secrets": (True, "none found in what is committed"),
        "configuration": (False, "headway.yaml has no env contract"),
        "limits": (False, "resources: no cpu and no memory"),
        "scaling": (False, "one instance"),
        "metrics": (False, "strategy rolling without an analysis"),
        "runbook": (False, "no RUNBOOK* and no docs/runbook*"),
    }


def test_a_repository_that_is_fit(place: Repository) -> None:
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


def test_an_image_of_moving_parts(place: Repository) -> None:
    image = POOR.replace("run: x", "build: {image: ghcr.io/acme/shop}").replace("process/p", "docker/p")
    place.commit(headway_dot_yaml=image, Dockerfile="FROM python\nCMD python app.py\n", _dot_dockerignore=".git\n")
    passes, evidence = examined(place)["image"]
    assert not passes
    assert evidence.startswith("Dockerfile:1: DL3006")


@pytest.fixture
def scanner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where programs are looked for, but for the system's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/bin")
    return programs


def install(programs: Path, name: str, says: str, code: int = 0) -> None:
    program = programs / name
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
    program.chmod(0o755)


NPM = '{{"metadata": {{"vulnerabilities": {{"high": {0}, "total": {0}}}}}}}'
PIP = '{"dependencies": [{"name": "a", "vulns": []}, {"name": "b", "vulns": [{"id": "CVE-1"}]}]}'


@pytest.mark.parametrize(
    ("file", "program", "says", "code", "wanted"),
    [
        ("package-lock.json", "npm", NPM.format(0), 0, (True, "npm: none known")),
        ("package-lock.json", "npm", NPM.format(3), 1, (False, "npm: 3 known vulnerabilities")),
        ("package-lock.json", "npm", '{"error": {"summary": "no network"}}', 1, None),
        ("requirements.txt", "pip-audit", PIP, 1, (False, "pip-audit: 1 known vulnerabilities")),
        ("requirements.txt", "pip-audit", "no json", 2, None),
        ("README", "npm", NPM.format(3), 1, None),
        ("README", "osv-scanner", '{"results": []}', 0, (True, "osv-scanner: none known")),
        (
            "README",
            "trivy",
            '{"SchemaVersion": 2, "Results": [{"Vulnerabilities": [{}, {}]}]}',
            0,
            (False, "trivy: 2 known vulnerabilities"),
        ),
        ("README", "trivy", "{}", 0, None),
        ("go.mod", "govulncheck", "", 3, (False, "govulncheck: vulnerabilities that the code reaches")),
        ("go.mod", "govulncheck", "", 0, (True, "govulncheck: none that the code reaches")),
        ("go.mod", "govulncheck", "", 1, None),
    ],
)
async def test_scanners_that_are_installed_are_asked_and_believed_only_when_they_answer(
    tmp_path: Path, scanner: Path, file: str, program: str, says: str, code: int, wanted: tuple[bool, str] | None
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / file).touch()
    install(scanner, program, says, code)
    assert await vulnerabilities.examine(tree) == wanted


async def test_without_a_scanner_nothing_is_known(tmp_path: Path, scanner: Path) -> None:
    assert await vulnerabilities.examine(tmp_path) is None
