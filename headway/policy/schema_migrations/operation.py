"""One change of a schema migration."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Kind", "Operation"]

Kind: TypeAlias = Literal["expand", "contract"]


class Operation(NamedTuple):
    """One change; `contract`: a version of the app that does not know of it may fail after it."""

    kind: Kind
    line: int
    what: str
