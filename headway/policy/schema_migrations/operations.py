"""What a schema migration changes, read from its text without running it."""

from __future__ import annotations

import re

from headway.policy.schema_migrations import python_parser, rails_parser, sql_parser
from headway.policy.schema_migrations.operation import Operation

__all__ = ["operations"]

ANNOTATION = re.compile(r"\bheadway:\s*(expand|contract)\b")
PARSERS = {"sql": sql_parser.read, "py": python_parser.read, "rb": rails_parser.read}


def operations(path: str, text: str) -> list[Operation] | None:
    """The changes, in the order of their lines; None when the migration's language is not known.

    A comment with `headway: expand` or `headway: contract` takes precedence over the parser.
    """
    if annotated := ANNOTATION.search(text):
        line = text.count("\n", 0, annotated.start()) + 1
        return [Operation("contract" if annotated[1] == "contract" else "expand", line, "says so itself")]
    parser = PARSERS.get(path.rpartition(".")[2])
    return sorted(parser(text), key=lambda one: one.line) if parser else None
