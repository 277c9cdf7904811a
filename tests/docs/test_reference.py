"""The reference pages match the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.cli import command_docs
from headway.domain import errors

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"
SOURCES = [path for name in ("headway", "flows", "tasks", "blocks") for path in (ROOT / name).rglob("*.py")]


@pytest.mark.parametrize("name", ["cli.md", "http-api.md", "openapi.json"])
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (PAGES / name).read_text() == command_docs.files()[name], "run `make reference`"


def kinds(of: type[errors.HeadwayError]) -> Iterator[type[errors.HeadwayError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_is_listed_with_exit_code_and_parent() -> None:
    rows = re.findall(r"^\| ((?:&nbsp;)*)`(\w+)` \| (\d+) \|", (PAGES / "errors.md").read_text(), re.MULTILINE)
    listed = {name: (len(indent) // len("&nbsp;" * 2), int(code)) for indent, name, code in rows}

    ours = [kind for kind in kinds(errors.HeadwayError) if kind.__module__ == errors.__name__]
    depth = {kind.__name__: len(inspect.getmro(kind)) - len(inspect.getmro(errors.HeadwayError)) - 1 for kind in ours}
    assert listed == {kind.__name__: (depth[kind.__name__], kind.exit_code) for kind in ours}


def test_every_environment_variable_of_the_code_is_listed() -> None:
    page = (PAGES / "environment-variables.md").read_text()
    listed = {name.rstrip("_*") for name in re.findall(r"HEADWAY_[A-Z_*]+", page)}
    examples = re.compile("HEADWAY_SECRET_[A-Z]")

    named = {name for path in SOURCES for name in re.findall(r"\bHEADWAY_[A-Z_]*[A-Z]", path.read_text())}
    assert not [name for name in named if not examples.match(name) and not any(one.startswith(name) for one in listed)]
