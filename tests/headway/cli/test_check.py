"""The production readiness checklist of `headway check`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standins.repositories import Repository

pytestmark = pytest.mark.slow

SETTINGS = """
app: shop
run: x
readiness: {attest: {on_call: {by: ann, on: 2026-01-01, until: 2999-01-01, note: the rota}}}
environments:
  production: {target: process/p, readiness: [operations, tls]}
"""


def check(repository: Repository, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("headway")), "check", str(repository.path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_checklist_has_every_item_that_the_repository_shows(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS, RUNBOOK_dot_md="# What to do")
    lines = [" ".join(line.split()) for line in check(repository).stdout.splitlines()]
    assert "✗ tests headway.yaml has no checks" in lines
    assert "✓ runbook RUNBOOK.md (required)" in lines
    assert "✓ on_call ann on 2026-01-01: the rota, until 2999-01-01 (required)" in lines
    assert "? tls not verified and not attested (required)" in lines
    assert lines[-1].endswith("more are verified by a release to an environment with `readiness`")
    rows = {row["item"]: row for row in json.loads(check(repository, "--json").stdout)["readiness"]}
    assert rows["on_call"]["state"] == "attested"
    assert rows["cors"] == {
        "group": "security",
        "item": "cors",
        "": "CORS does not allow arbitrary origins with credentials",
        "state": "unknown",
        "needed": "",
        "evidence": "not verified and not attested",
    }


def test_a_secret_that_is_committed_is_an_error(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS, key_dot_py="KEY = 'AKIA" + "QYLPMN5HHHFPZAM2'\n")
    done = check(repository, code=2)
    assert "✗ secrets" in done.stdout
    assert "a secret is in the repository" in done.stderr
    assert "QYLPMN5HHHFPZAM2" not in done.stdout + done.stderr


def test_an_unknown_platform_is_an_error(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS.replace("process/p", "proces/p"))
    told = check(repository, code=2).stderr
    assert "headway.yaml:6: environments/production/target: no platform is called 'proces'" in told
    assert "(did you mean 'process'?); there are: docker, kubernetes, process, railway, vercel" in told


def test_an_old_key_of_the_settings_is_a_warning(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS + "leaks: {exceptions: {docs/: examples}}\n")
    warning = "headway.yaml:7: leaks is now called secret_scan; the old name stops working in 0.3.0"
    assert f"warning: {warning}" in check(repository).stdout.splitlines()
    assert json.loads(check(repository, "--json").stdout)["warnings"] == [warning]
