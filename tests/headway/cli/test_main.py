"""The whole command line: `--help` of every command, and its start-up time."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headway.cli.help_text import examples_of
from headway.cli.main import Commands, app
from headway.cli.output import output

LOADED = """
import sys
from headway.cli import main
sys.argv = ["headway", *sys.argv[1:]]
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
SLOW = {"prefect", "sqlalchemy", "docker", "kubernetes", "pydantic", "httpx", "fastapi", "matplotlib", "rich"}


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, those of groups too."""
    group = group or typer.main.get_command(app)
    for name in group.commands:
        command = group.commands[name]
        yield f"{prefix}{name}", command
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_slow_library(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, option], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout
    assert not SLOW & set(done.stderr.split())


def test_help_lists_every_command_with_its_summary() -> None:
    lines = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120"}).output.splitlines()

    for title, declared in Commands.declared.items():
        begin = lines.index(f"{title}:") + 1
        listed = dict(line.strip().split(maxsplit=1) for line in lines[begin : lines.index("", begin)])
        assert list(listed) == list(declared)
        assert listed == {name: COMMANDS[name].help.partition("\n")[0] for name in listed}
    assert set(COMMANDS) >= {name for group in Commands.declared.values() for name in group}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_one_line_summary_and_describes_its_options(name: str) -> None:
    command = COMMANDS[name]
    summary = command.help.partition("\n")[0]

    assert summary[0].isupper()
    assert summary.endswith(".")
    assert len(summary) <= 64, "longer than a line of `headway --help`"
    for parameter in command.params:
        assert parameter.help, f"headway {name}: {parameter.name}"
        assert parameter.help[0].isupper()


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if not isinstance(one, typer.core.TyperGroup)])
def test_the_help_of_a_command_ends_with_examples_and_exit_codes(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "120"}).output

    examples, _, codes = shown.partition("\nExamples:\n")[2].partition("\nExit codes:\n")
    assert examples.strip()
    assert all(f"headway {name}" in line for line in examples.strip().splitlines())
    assert [line.split()[0] for line in codes.strip().splitlines()] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if not isinstance(one, typer.core.TyperGroup)])
def test_examples_have_only_options_and_arguments_that_exist(name: str) -> None:
    command = COMMANDS[name]
    for example in examples_of(command):
        words = shlex.split(example.removeprefix('eval "$(').replace(')"', ""), comments=True)
        words = words[words.index("headway") + 1 + len(name.split()) :]
        if ">" in words:
            words = words[: words.index(">")]
        command.make_context(name, words, resilient_parsing=False)


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert output.style("failed", "red", Terminal()) == "\033[31mfailed\033[0m"
    assert output.style("failed", "red", io.StringIO()) == "failed"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.style("failed", "red", Terminal()) == "failed"


def test_mistyped_command_suggests_the_nearest_one() -> None:
    done = CliRunner().invoke(app, ["relese"])
    assert done.exit_code == 2
    assert "Did you mean 'release'" in done.output


def test_a_group_without_a_command_prints_its_commands() -> None:
    done = CliRunner().invoke(app, ["env"])
    assert done.exit_code == 2
    assert "Compare the environment variables of two environments." in done.output
