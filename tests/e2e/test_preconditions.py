"""Nothing is built when the configuration of any environment, or the repository, is not fit for production."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Headway, Repo

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
env:
  KEY: {{secret: true}}
  OTHER: {{secret: true, required: [production]}}
environments:
  staging: {{target: process/staging, env: {{EXTRA: "1"}}}}
  production: {{target: process/production}}
"""


def test_production_preconditions_are_checked_before_the_build(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "unfit", SETTINGS)
    told = headway.release(repo.path, code=1)
    assert told["state"] == "failed"
    assert {stage["name"]: stage["state"] for stage in told["stages"]} == {"configuration": "failed"}
    assert told["reason"].startswith("configuration: staging: KEY: !secret unfit-staging/key")
    assert told["reason"].endswith("(and 2 more)")
    with headway.prefect as prefect:
        wanted = {"artifacts": {"key": {"any_": ["configuration-unfit"]}}}
        (table,) = prefect.post("/artifacts/latest/filter", json=wanted).json()
    assert [(row["environment"], row["variable"], "error" in row) for row in json.loads(table["data"])] == [
        ("production", "KEY", True),
        ("production", "OTHER", True),
        ("staging", "KEY", True),
        ("staging", "EXTRA", False),
    ]
    repo.commit("without them", {"headway.yaml": SETTINGS.format(app="unfit").replace("secret: true", "default: x")})
    repo.commit("a key", {"key.py": "KEY = 'AKIA" + "QYLPMN5HHHFPZAM2'\n"})
    told = headway.release(repo.path, code=1)
    assert told["reason"] == "secrets in the repository: 1 readable by everybody with access to it"
    assert {stage["name"]: stage["detail"] for stage in told["stages"]}["configuration"] == "5 values, 1 warnings"
