"""A reason why something is not done or cannot be done, as a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Refusal"]


@dataclass(frozen=True)
class Refusal:
    """`Refusal | None`: None means yes. Printed, it is `what`."""

    what: str
    hint: str = ""

    def __str__(self) -> str:
        return self.what
