"""`headway approve` and `headway reject`, while Prefect's server is away: the decision is the OS user's."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headway.cli import approval
from headway.cli.main import app
from headway.ledger import Ledger, ReleaseRecord
from tests.standins.people import user

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


def invoke(monkeypatch: pytest.MonkeyPatch, who: str, *arguments: str) -> Result:
    monkeypatch.setattr(approval, "os_user", lambda: user(who))
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def release(ledger: Ledger) -> ReleaseRecord:
    made = ledger.releases.start("shop", "/repo", "main", flow_run_id="run-1", requested_by="ann")
    ledger.approvals.request(made.id, "production", "r2", evidence={}, expires_at=LATER, by=[], not_author=False)
    ledger.releases.set_waiting(made.id)
    return made


@pytest.mark.parametrize(("command", "state"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_counts_twice_too(
    ledger: Ledger, release: ReleaseRecord, monkeypatch: pytest.MonkeyPatch, command: str, state: str
) -> None:
    for person in ("bob", "carl"):  # the second finds the decision of the first
        said = invoke(monkeypatch, person, command, release.name)
        assert (said.exit_code, said.exception) == (0, None)
        assert f"shop#1: production {state} by bob" in said.output
        assert "the decision is recorded; the release continues when the Prefect server responds" in said.output
    decided = ledger.approvals.last_decided(release.id)
    assert decided is not None
    assert (decided.state, decided.decided_by) == (state, "bob")


def test_another_decision_is_refused(ledger: Ledger, release: ReleaseRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke(monkeypatch, "bob", "approve", release.name)
    refused = invoke(monkeypatch, "bob", "reject", release.name)
    assert "shop#1 waits for no approval" in str(refused.exception)
    decided = ledger.approvals.last_decided(release.id)
    assert decided is not None
    assert decided.state == "approved"


def test_a_release_that_goes_on_is_not_approved_again(
    ledger: Ledger, release: ReleaseRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke(monkeypatch, "bob", "approve", release.name)
    ledger.releases.set_waiting(release.id, waiting=False)
    again = invoke(monkeypatch, "bob", "approve", release.name)
    assert "shop#1 waits for no approval: it is running" in str(again.exception)


def test_the_first_of_two_approvers_reads_how_many_are_missing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ledger.releases.start("shop", "/repo", "main", flow_run_id="run-1", requested_by="ann")
    ledger.approvals.request(
        made.id, "production", "r2", evidence={}, expires_at=LATER, by=[], not_author=False, count=2
    )
    ledger.releases.set_waiting(made.id)
    said = invoke(monkeypatch, "bob", "approve", made.name)
    assert said.output == "shop#1: production approved by bob: 1 of 2 approvals (bob)\n"  # the run is not resumed
    status = invoke(monkeypatch, "bob", "status", "shop")
    assert "waits for approval of production, 1 of 2 approvals (bob), before 2100-01-01" in status.output
    assert "production approved by bob, carl" in invoke(monkeypatch, "carl", "approve", made.name).output


@pytest.mark.parametrize("names", [["--by", "owner@acme"], []])
def test_no_option_variable_or_git_configuration_gives_anothers_approval(
    ledger: Ledger, release: ReleaseRecord, tmp_path: Path, names: list[str]
) -> None:
    """As a user of the machine tries it: another process, with everything set that such a user can set."""
    (tmp_path / ".gitconfig").write_text("[user]\n  email = owner@acme\n")
    forged = {"HOME": str(tmp_path), "USER": "owner@acme", "LOGNAME": "owner@acme", "GIT_AUTHOR_EMAIL": "owner@acme"}
    said = subprocess.run(
        [Path(sys.executable).with_name("headway"), "reject", release.name, *names],
        env=os.environ | forged,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    me = pwd.getpwuid(os.getuid()).pw_name
    assert ("--by owner@acme is ignored: the name is now the authenticated user's, " + me in said.stderr) == bool(names)
    decided = ledger.approvals.last_decided(release.id)
    assert decided is not None
    assert decided.decided_by == me
    assert [one.principal.name for one in ledger.approvals.decisions(decided.id)] == [me]
