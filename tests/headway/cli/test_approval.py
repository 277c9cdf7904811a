"""`headway approve` and `headway reject` while Prefect's server is away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headway.cli import approval
from headway.cli.main import app
from headway.ledger import Ledger, ReleaseRecord

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger, and the address of a server that does not listen."""
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    monkeypatch.delenv("HEADWAY_LEDGER_URL", raising=False)
    monkeypatch.setattr(approval, "PATIENCE", 0.2)
    with socket.socket() as taken, Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/api")
        yield opened


@pytest.fixture
def release(ledger: Ledger) -> ReleaseRecord:
    made = ledger.releases.start("shop", "/repo", "main", flow_run_id="run-1", requested_by="ann")
    ledger.approvals.request(made.id, "production", "r2", evidence={}, expires_at=LATER, by=[], not_author=False)
    ledger.releases.set_waiting(made.id)
    return made


@pytest.mark.parametrize(("command", "state"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_counts_twice_too(ledger: Ledger, release: ReleaseRecord, command: str, state: str) -> None:
    for person in ("bob", "carl"):  # the second finds the decision of the first
        said = CliRunner().invoke(app, [command, release.name, "--by", person])
        assert (said.exit_code, said.exception) == (0, None)
        assert f"shop#1: production {state} by bob" in said.output
        assert "the decision is recorded; the release continues when the Prefect server responds" in said.output
    decided = ledger.approvals.last_decided(release.id)
    assert decided is not None
    assert (decided.state, decided.decided_by) == (state, "bob")


def test_another_decision_is_refused(ledger: Ledger, release: ReleaseRecord) -> None:
    CliRunner().invoke(app, ["approve", release.name, "--by", "bob"])
    refused = CliRunner().invoke(app, ["reject", release.name, "--by", "bob"])
    assert "shop#1 waits for no approval" in str(refused.exception)
    decided = ledger.approvals.last_decided(release.id)
    assert decided is not None
    assert decided.state == "approved"


def test_a_release_that_goes_on_is_not_approved_again(ledger: Ledger, release: ReleaseRecord) -> None:
    CliRunner().invoke(app, ["approve", release.name, "--by", "bob"])
    ledger.releases.set_waiting(release.id, waiting=False)
    again = CliRunner().invoke(app, ["approve", release.name, "--by", "bob"])
    assert "shop#1 waits for no approval: it is running" in str(again.exception)
