"""A release that degrades a dependency is rolled back; one that starts with a degraded dependency is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Headway, Repo

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
health: {{detailed: /detailed}}
environments:
  production: {{target: process/production, stop_grace: 2s, drain: 3s}}
"""


def says(**checks: str) -> str:
    told = {name: {"status": status} for name, status in checks.items()}
    status = "ok" if set(checks.values()) == {"ok"} else "degraded"
    return f"    return 200, {{'status': {status!r}, 'checks': {told!r}}}"


def test_dependency_degraded_by_the_release_rolls_back(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "needy", SETTINGS)
    repo.behave(says(database="ok", redis="ok"))
    first = headway.release(repo.path)
    assert {stage["name"]: stage["detail"] for stage in first["stages"]}["production dependencies"] == "2 checked"
    live = headway.ledger.rollouts.live("needy", "production")
    repo.behave(says(database="ok", redis="down"))
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert told["reason"] == "production: /detailed: degraded since the release: redis"
    assert headway.ledger.rollouts.live("needy", "production") == live


def test_dependency_degraded_before_the_release_does_not_roll_back(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "sick", SETTINGS)
    away = tmp_path / "redis is away"
    answer = f"""
    import os
    down = os.path.exists({str(away)!r})
    return 200, {{'status': 'degraded' if down else 'ok', 'checks': {{'redis': not down, 'database': True}}}}
"""
    repo.behave(answer)
    headway.release(repo.path)
    away.touch()  # under the feet of the version that is live
    newer = repo.behave(f"{answer}    # better")
    told = headway.release(repo.path)
    assert told["state"] == "succeeded"
    said = {stage["name"]: stage["detail"] for stage in told["stages"]}["production dependencies"]
    assert said == "2 checked, degraded before: redis"
    live = headway.ledger.rollouts.live("sick", "production")
    assert live is not None
    assert newer.startswith(live[:7])
