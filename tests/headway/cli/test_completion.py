"""Completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headway.ledger import Ledger

BIN = Path(sys.executable).parent
IN_BASH = """
eval "$(headway completion bash)"
COMP_WORDS=(headway %s) COMP_CWORD=%d
_headway_completion headway
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def asked(shell: str, script: str, home: Path, **more: str) -> str:
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HEADWAY_HOME": str(home), **more}
    done = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rel", ["release"]),
        ("app ev", ["events"]),
        ("release --fo", ["--follow"]),
        ("watch sh", ["shop#1", "shop#2"]),
        ("logs s", ["shop"]),
        ("completion b", ["bash"]),
    ],
)
def test_bash_completes_commands_options_and_names(tmp_path: Path, words: str, found: list[str]) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        for _ in range(2):
            ledger.releases.start("shop", "/shop", "main", flow_run_id=None, requested_by="ann")
    assert sorted(asked("bash", IN_BASH % (words, len(words.split())), tmp_path).split()) == found


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_are_read_without_an_error(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    load = {"zsh": 'autoload -U compinit && compinit -u; eval "$(headway completion zsh)"; print ok'}
    load["fish"] = "headway completion fish | source; complete -C 'headway rel'; echo ok"
    assert asked(shell, load[shell], tmp_path, HOME=str(tmp_path)).rstrip().endswith("ok")


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "headway rel"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "headway rel", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_other_shells_get_the_summary_too(tmp_path: Path, shell: str, variables: dict[str, str]) -> None:
    shown = asked("sh", "headway", tmp_path, _HEADWAY_COMPLETE=f"complete_{shell}", **variables)
    assert "release" in shown
    assert "Release a commit and follow its progress." in shown


def test_a_ledger_that_cannot_be_opened_writes_nothing_into_the_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a database, but long enough to be taken for one" * 100)
    shown = asked(
        "sh",
        "headway || true",
        tmp_path,
        _HEADWAY_COMPLETE="complete_bash",
        COMP_WORDS="headway watch ",
        COMP_CWORD="2",
    )
    assert shown == ""
