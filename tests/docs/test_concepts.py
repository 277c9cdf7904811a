"""The pieces of headway.yaml on concept and reference pages are valid."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from headway import config
from tests.docs.pages import Block, blocks

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [*(DOCS / "concepts").glob("*.md"), *(DOCS / "reference").glob("*.md")]
PIECES = [
    block
    for page in sorted(PAGES)
    for block in blocks(page)
    if block.language == "yaml" and not block.text.lstrip().startswith("#")
]
# What has to stand around a piece that does not begin at the top of the file.
AROUND = {
    "strategy": "environments:\n  production:\n    target: process/production\n",
    "analysis": "environments:\n  production:\n    target: process/production\n    strategy:\n      canary:\n",
}
REST = {
    "app": "app: shop",
    "run": "run: python -m shop",
    "environments": "environments: {production: {target: process/production}}",
}


def completed(piece: str) -> str:
    """The whole file that a piece is part of."""
    first = piece.partition(":")[0]
    if around := AROUND.get(first):
        indent = " " * (8 if first == "analysis" else 4)
        piece = around + textwrap.indent(piece, indent)
    rest = [line for key, line in REST.items() if f"\n{key}:" not in f"\n{piece}"]
    return "\n".join([*rest, piece])


@pytest.mark.parametrize("piece", PIECES, ids=lambda block: block.place)
def test_piece_of_headway_yaml_is_valid(tmp_path: Path, piece: Block) -> None:
    (tmp_path / "headway.yaml").write_text(completed(piece.text))

    assert config.load(tmp_path).app


def test_every_page_with_settings_is_checked() -> None:
    assert {piece.page.name for piece in PIECES} >= {"judge.md", "strategies.md", "metrics.md", "headway-yaml.md"}
