"""`headway prune` on a home of its own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headway.build import retention
from headway.cli.main import app


def test_a_dry_run_lists_what_a_run_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    monkeypatch.delenv("HEADWAY_LEDGER_URL", raising=False)
    old = [tmp_path / "workspaces" / "shop" / "1-run", tmp_path / "output" / "release"]
    before = time.time() - retention.KEEP - 60
    for path in old:
        path.mkdir(parents=True)
        os.utime(path, (before, before))

    listed = json.loads(CliRunner().invoke(app, ["prune", "--dry-run", "--json"]).stdout)
    assert listed["files"] == [str(path) for path in old]
    assert all(path.exists() for path in old)
    removed = json.loads(CliRunner().invoke(app, ["prune", "--json"]).stdout)
    assert removed == listed | {"dry_run": False}
    assert not any(path.exists() for path in old)
