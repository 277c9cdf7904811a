"""Migrations of Rails, read line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headway.policy.schema_migrations import sql_parser
from headway.policy.schema_migrations.operation import Operation

__all__ = ["read"]

_DOWN = re.compile(r"^([ \t]*)def (?:self\.)?down\b.*?^\1end\b", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(^|\s)#(?!\{).*")
_HEREDOC = re.compile(r"execute[ (]+<<[~-]?['\"]?(\w+)['\"]?.*?\n(.*?)^\s*\1\b", re.DOTALL | re.MULTILINE)
_EXECUTE = re.compile(r"execute[ (]+(?:\"([^\"]+)\"|'([^']+)')")
_CALL = re.compile(r"\b(\w+)[ (]+:?[\"']?(\w+)")
_TAKES = re.compile(
    r"remove_(columns?|reference|belongs_to|timestamps)|drop_(table|join_table)|rename_(column|table)|change_column"
)
_FORBIDS = re.compile(r"add_(foreign_key|check_constraint|unique_constraint|exclusion_constraint)")
_ADDS = re.compile(r"add_(columns?|reference|belongs_to|timestamps)")


def read(text: str) -> Iterator[Operation]:
    """Operations of a migration, without those of `down`."""
    up = _DOWN.sub(lambda match: "\n" * match[0].count("\n"), text)
    for found in _HEREDOC.finditer(up):
        for one in sql_parser.read(found[2]):
            yield one._replace(line=up.count("\n", 0, found.start(2)) + one.line)
    lines = [_COMMENT.sub("", line) for line in up.splitlines()]
    made = {call[2] for line in lines if (call := _CALL.search(line)) and call[1] == "create_table"}
    for number, line in enumerate(lines, 1):
        if executed := _EXECUTE.search(line):
            for one in sql_parser.read(executed[1] or executed[2]):
                yield one._replace(line=number)
        elif call := _CALL.search(line):
            yield from _operations(call[1], call[2], line, number, made)


def _operations(name: str, table: str, line: str, number: int, made: set[str]) -> Iterator[Operation]:
    if name == "create_table":
        yield Operation("expand", number, f"creates table {table}")
    elif table in made:
        return
    elif _TAKES.fullmatch(name) or (name == "change_column_null" and "false" in line):
        yield Operation("contract", number, f"{name.replace('_', ' ')} of {table}")
    elif _FORBIDS.fullmatch(name) or (name == "add_index" and re.search(r"unique:\s*true", line)):
        yield Operation("contract", number, f"adds a constraint to {table}")
    elif _ADDS.fullmatch(name):
        yield Operation("expand", number, f"adds a column to {table}")
        if re.search(r"null:\s*false", line) and "default:" not in line:
            yield Operation("contract", number, f"adds a column to {table} that others do not fill: no default")
