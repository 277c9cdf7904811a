"""The whole command line: `--help` of every command, and its start-up time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headway.cli.main import Commands, app

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

    listed = dict(line.strip().split(maxsplit=1) for line in lines[lines.index("Commands:") + 1 :])
    assert list(listed) == list(Commands.declared)
    assert listed == {name: COMMANDS[name].help.partition("\n")[0] for name in listed}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_one_line_summary_and_describes_its_options(name: str) -> None:
    command = COMMANDS[name]
    summary = command.help.partition("\n")[0]

    assert summary[0].isupper()
    assert summary.endswith(".")
    assert len(summary) <= 68, "longer than a line of `headway --help`"
    for parameter in command.params:
        assert parameter.help, f"headway {name}: {parameter.name}"
        assert parameter.help[0].isupper()


def test_mistyped_command_suggests_the_nearest_one() -> None:
    done = CliRunner().invoke(app, ["relese"])
    assert done.exit_code == 2
    assert "Did you mean 'release'?" in done.output


def test_a_group_without_a_command_prints_its_commands() -> None:
    done = CliRunner().invoke(app, ["env"])
    assert done.exit_code == 2
    assert "Compare the environment variables of two environments." in done.output
