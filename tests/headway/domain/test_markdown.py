"""Untrusted text in Markdown tables."""

from __future__ import annotations

import pytest

from headway.domain.markdown import code_cell, table_cell


@pytest.mark.parametrize(
    ("text", "cell"), [("a | b", "a \\| b"), ("one\ntwo\r\n three", "one two three"), ("", ""), ("plain", "plain")]
)
def test_table_cell_is_escaped(text: str, cell: str) -> None:
    assert table_cell(text) == cell


@pytest.mark.parametrize(
    ("text", "cell"), [("a | `b`\n c", "`a ¦ 'b' c`"), ("x" * 10, "`xxxxx`"), (" \n", ""), ("", "")]
)
def test_code_span_is_escaped(text: str, cell: str) -> None:
    assert code_cell(text, longest=5 if text.startswith("x") else 50) == cell
