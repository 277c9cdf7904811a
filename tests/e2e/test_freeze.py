"""A release waits for the end of a freeze, unless it is overridden with a reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.conftest import ME, Headway, Repo

pytestmark = pytest.mark.e2e

FROZEN = """
app: {app}
run: exec python3 app.py
environments:
  production: {{target: process/production, freeze: ["%s"]}}
"""


def closing_soon() -> str:
    """A freeze window that lasts at least 25 seconds more: windows end at whole minutes."""
    now = datetime.now(UTC)
    end = now + timedelta(seconds=85)
    return f"{now - timedelta(hours=1):%Y-%m-%d %H:%M} - {end:%Y-%m-%d %H:%M} UTC"


def test_release_waits_for_a_freeze_unless_overridden_with_a_reason(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "frozen", FROZEN % closing_soon())
    first = headway.release(repo.path, code=3)
    newer = headway.release(repo.path, "--yes", code=3)  # no approval is skipped that way
    assert "waits, production is frozen until" in headway.run("status", "frozen").stdout
    refused = headway.run("approve", newer["name"], code=2)
    assert "reason why it cannot wait" in refused.stderr
    headway.run("approve", newer["name"], "--reason", "customers cannot pay")
    headway.until(lambda: headway.ledger.releases.find(newer["name"]).state == "succeeded")
    details = {stage.name: stage.detail for stage in headway.ledger.stages.by_release(newer["id"])}
    assert details["production freeze"] == f"approved by {ME}: customers cannot pay"
    # When it is over the older one finds that a newer one is there already.
    ended = headway.until(lambda: not (one := headway.ledger.releases.find(first["name"])).open and one, 120)
    assert (ended.state, ended.reason) == ("superseded", f"production: superseded by {newer['name']}")
