"""Tests run in any order in one process: what a command changes there must not outlast its test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headway.cli.main import app
from headway.cli.output import output
from tests.standins import process_state


def test_what_code_changes_in_the_process_is_restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWAY_HOME", "before")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("HEADWAY_LEDGER_URL", "before")
    directory = Path.cwd()
    with process_state.restored():
        os.environ["HEADWAY_HOME"] = "after"
        os.environ["PREFECT_API_URL"] = "after"
        del os.environ["HEADWAY_LEDGER_URL"]
        os.chdir(tmp_path)
    assert (os.environ["HEADWAY_HOME"], os.environ["HEADWAY_LEDGER_URL"]) == ("before", "before")
    assert "PREFECT_API_URL" not in os.environ
    assert Path.cwd() == directory


def test_the_options_of_a_command_end_with_its_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    with process_state.restored():
        app(["--debug", "app", "list", "--json"], standalone_mode=False)
        assert (output.json, output.debug) == (True, True)
    assert capsys.readouterr().out.startswith("[")
    output.say("text")
    assert capsys.readouterr().out == "text\n"
    assert (output.json, output.debug) == (False, False)
