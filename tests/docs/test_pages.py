"""Checks of every page without running it: commands exist, files parse, decisions have the required sections."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from headway.cli.main import app
from tests.docs.pages import Block, blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMAND_LINE = get_command(app)
INLINE = re.compile(r"`(headway [^`]+)`")
ENDS = ("|", ">", "&&", ";", "&")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `headway` command in a shell text."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=False, posix=True)
        while words:
            end = next((at for at, word in enumerate(words) if word in ENDS), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r"\w+=.*", command[0]):
                command = command[1:]
            if command[:1] == ["headway"]:
                yield command[1:]


def parse(words: list[str], *, complete: bool) -> None:
    """Raises AssertionError for a command or option that does not exist; with `complete`, for missing arguments too."""
    command: Any = COMMAND_LINE
    while words and hasattr(command, "commands"):
        name, *words = words
        if name.startswith("-"):
            assert any(name in one.opts for one in command.params), f"no option {name}"
            continue
        if name.isupper():  # COMMAND: any of them
            return
        assert name in command.commands, f"no command {name}: {', '.join(command.commands)}"
        command = command.commands[name]
    if complete and not hasattr(command, "commands"):
        command.make_context(command.name, words)
        return
    options = [word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    assert set(options) <= known, f"{command.name}: no option {set(options) - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_every_headway_command_of_a_page_exists(page: Path) -> None:
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block.text):
                _parsed(f"{block.place}: headway {shlex.join(words)}", words, complete=True)
    for inline in INLINE.findall(page.read_text()):
        for words in commands(inline.replace("'", "")):
            _parsed(f"{page.name}: {inline}", words, complete=False)


def _parsed(what: str, words: list[str], *, complete: bool) -> None:
    try:
        parse(words, complete=complete)
    except Exception as error:  # Typer's own error classes are private
        raise AssertionError(f"{what}: {error}") from error


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "yaml"], ids=lambda block: block.place)
def test_yaml_of_a_page_parses(block: Block) -> None:
    list(YAML(typ="rt").load_all(block.text))


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "json"], ids=lambda block: block.place)
def test_json_of_a_page_parses(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_has_a_status_a_context_a_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.search(r"^Status: (proposed|accepted|replaced)", text, re.MULTILINE)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:3] == ["Context", "Decision", "Consequences"]


def test_the_index_of_decisions_lists_each() -> None:
    directory = ROOT / "docs" / "decisions"
    linked = re.findall(r"\]\((0[^)]+)\)", (directory / "index.md").read_text())
    assert linked == sorted(page.name for page in directory.glob("0*.md"))
