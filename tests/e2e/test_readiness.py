"""An environment that requires production readiness needs every item, or an approval without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headway.system import directories
from tests.e2e.conftest import ME, Headway, Repo

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
readiness:
  attest:
    on_call: {{by: ann, on: 2020-01-01, until: 2999-01-01, note: rota}}
environments:
  staging: {{target: process/staging}}
  production: {{target: process/production, readiness: [rollback, runbook, on_call], stop_grace: 2s, drain: 3s}}
"""


def test_unready_environment_waits_for_an_approver(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "unready", SETTINGS)
    told = headway.release(repo.path, "--yes", code=3)  # which skips approvals, and not this
    asked = headway.ledger.approvals.waiting(told["id"])
    assert asked is not None
    states = {row["item"]: row["state"] for row in asked.evidence["readiness"]}
    assert (states["previous"], states["schema"], states["on_call"]) == ("pass", "pass", "attested")
    assert (states["tls"], states["cors"], states["rehearsed"]) == ("unknown", "pass", "fail")
    assert asked.evidence["not_ready"] == [
        "rehearsed: no environment before has tried it: `rehearse` in its canary or blue_green does",
        "runbook: no RUNBOOK* and no docs/runbook*",
    ]
    assert "production is not ready (rehearsed: " in headway.run("status", "unready").stdout
    with headway.prefect as prefect:
        wanted = {"artifacts": {"key": {"any_": ["readiness-unready-production"]}}}
        (table,) = prefect.post("/artifacts/latest/filter", json=wanted).json()
    assert {row["item"]: row["state"] for row in json.loads(table["data"])} == states
    headway.run("approve", told["name"], "--reason", "the first release")
    headway.until(lambda: headway.ledger.releases.get(told["id"]).state == "succeeded")
    details = {stage.name: stage.detail for stage in headway.ledger.stages.by_release(told["id"])}
    assert details["production approval"] == f"approved by {ME}: the first release"
    # With a runbook, and a rollback tested on staging, no approval is needed.
    rehearsing = SETTINGS.replace("process/staging", "process/staging, strategy: {{blue_green: {{rehearse: 10s}}}}")
    repo.commit("ready", {"headway.yaml": rehearsing.format(app="unready"), "RUNBOOK.md": "# What to do"})
    told = headway.release(repo.path)
    assert told["state"] == "succeeded"
    details = {stage["name"]: stage["detail"] for stage in told["stages"]}
    assert details["production approval"] == "approval: false"
    # Without a revision to roll back to, an approval is needed again.
    live = headway.ledger.rollouts.live("unready", "production")
    assert live is not None
    artifact = headway.ledger.revisions.find("unready", live, environment="production")[1].artifact
    directories.remove(Path(artifact.location).resolve())
    repo.commit("better", {"better": ""})
    told = headway.release(repo.path, code=3)
    asked = headway.ledger.approvals.waiting(told["id"])
    assert asked is not None
    assert asked.evidence["not_ready"] == [f"previous: {live}: there is no bundle {artifact.location} on this machine"]
    headway.run("reject", told["name"], "--reason", "no rollback")
    headway.until(lambda: headway.ledger.releases.get(told["id"]).state == "rejected")
