"""Text of other people in Markdown that Headway writes."""

from __future__ import annotations

__all__ = ["code_cell", "table_cell"]


def table_cell(text: str) -> str:
    """Text for a cell of a table: on one line, without ending the cell."""
    return " ".join(text.replace("|", "\\|").split())


def code_cell(text: str, longest: int) -> str:
    """Text as code in a cell of a table, cut to `longest` characters; empty for nothing."""
    # Within backticks, a backslash does not escape a pipe everywhere: the characters are replaced.
    line = " ".join(text.replace("`", "'").replace("|", "¦").split())
    return f"`{line[:longest]}`" if line else ""
