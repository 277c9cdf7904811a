"""What a migration does to those who use the database, read from its text without running it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Kind", "Operation", "operations"]

Kind: TypeAlias = Literal["expand", "contract"]
_SAID = re.compile(r"\bheadway:\s*(expand|contract)\b")


class Operation(NamedTuple):
    """One change; `contract`: a version that does not know of it may fail after it."""

    kind: Kind
    line: int
    what: str


def operations(path: str, text: str) -> list[Operation] | None:
    """What the migration does, in the order of its lines; None when its language is not known.

    A comment with `headway: expand` or `headway: contract` in it says it better than any reader.
    """
    if said := _SAID.search(text):
        line = text.count("\n", 0, said.start()) + 1
        return [Operation("contract" if said[1] == "contract" else "expand", line, "says so itself")]
    reader = _readers().get(path.rpartition(".")[2])
    return sorted(reader(text), key=lambda one: one.line) if reader else None


def _readers() -> dict[str, Callable[[str], Iterable[Operation]]]:
    from headway.policy.schema_migrations import python_parser, rails_parser, sql_parser  # they use Operation

    return {"sql": sql_parser.read, "py": python_parser.read, "rb": rails_parser.read}
