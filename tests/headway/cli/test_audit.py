"""`headway audit` on a home of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from headway.cli.main import app
from headway.domain.errors import HeadwayError, UsageError
from headway.ledger import Ledger
from headway.ledger.audit import Entry
from headway.ledger.audit_head import sign_head
from headway.system.paths import home, ledger_url


@pytest.fixture(autouse=True)
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    monkeypatch.delenv("HEADWAY_LEDGER_URL", raising=False)
    with Ledger.open(ledger_url()) as ledger:
        for number in range(1, 4):
            ledger.audit.add(Entry("app.added", f"shop{number}", "ann", {"host": "generic", "branch": None}))
        sign_head(ledger.audit, home())


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


def tamper(statement: str) -> None:
    engine = sa.create_engine(ledger_url())
    with engine.connect() as db, db.begin():
        db.execute(sa.text(statement))
    engine.dispose()


def test_events_are_listed_and_filtered() -> None:
    listed = invoke("list", "--subject", "shop2").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["number", "2"]
    assert listed[1].endswith("ann  app.added  shop2    host generic")
    assert [one["number"] for one in json.loads(invoke("list", "--limit", "2", "--json").stdout)] == [2, 3]


def test_a_whole_trail_is_verified() -> None:
    assert "3 events, none was changed" in invoke("verify").stdout
    assert json.loads(invoke("verify", "--json").stdout)["faults"] == []


def test_a_changed_trail_is_an_error() -> None:
    tamper("UPDATE audit_events SET subject = 'other' WHERE number = 2")
    result = invoke("verify")
    assert isinstance(result.exception, HeadwayError)
    assert result.stdout == "event 2 was changed after it was written\n"


def test_an_export_is_compared_with_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text(invoke("export").stdout)
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [1, 2, 3]
    assert invoke("verify", "--export", str(file)).exit_code == 0
    assert len(invoke("export", "--after", "2").stdout.splitlines()) == 1
    tamper("DELETE FROM audit_events WHERE number = 3")
    for signed_too in (tmp_path / "audit-head.json", None):
        result = invoke("verify", "--export", str(file))
        assert isinstance(result.exception, HeadwayError)
        assert "events were removed" in result.stdout
        if signed_too:
            signed_too.unlink()
    (tmp_path / "other").write_text("no json")
    assert isinstance(invoke("verify", "--export", str(tmp_path / "other")).exception, UsageError)
