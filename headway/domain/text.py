"""Text of other people, for terminals and logs."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Text on one line without control characters: they could move the cursor of a terminal, or hide what follows.

    Bidirectional controls and other invisible characters are removed too.
    """
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
