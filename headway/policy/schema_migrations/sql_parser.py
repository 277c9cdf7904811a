"""Migrations in SQL: those of PostgreSQL, MySQL and SQLite."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headway.policy.schema_migrations.operation import Kind, Operation

__all__ = ["read"]

_NAME = r'(?:[\w$]+|"[^"]+"|`[^`]+`|\[[^\]]+\])(?:\.(?:[\w$]+|"[^"]+"|`[^`]+`|\[[^\]]+\]))*'
_UNREAD = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_EXISTS = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
_CREATE = re.compile(
    rf"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|MATERIALIZED|RECURSIVE)\s+)*"
    rf"(TABLE|VIEW|TYPE|SCHEMA|SEQUENCE|FUNCTION|DOMAIN|EXTENSION)\s+{_EXISTS}({_NAME})",
    re.IGNORECASE,
)
_DROP = re.compile(
    rf"DROP\s+(TABLE|VIEW|MATERIALIZED\s+VIEW|SCHEMA|TYPE|DOMAIN|FUNCTION|SEQUENCE)\s+{_EXISTS}({_NAME})", re.IGNORECASE
)
_ALTER = re.compile(rf"ALTER\s+TABLE\s+{_EXISTS}(?:ONLY\s+)?({_NAME})\s+(.*)", re.IGNORECASE | re.DOTALL)
_RENAME = re.compile(r"(?:ALTER|RENAME)\s.*\bRENAME\b|RENAME\s+TABLE", re.IGNORECASE | re.DOTALL)
_UNIQUE = re.compile(rf"CREATE\s+UNIQUE\s+INDEX\s.*?\bON\s+(?:ONLY\s+)?({_NAME})", re.IGNORECASE | re.DOTALL)
_ROWS = re.compile(rf"(?:TRUNCATE(?:\s+TABLE)?|DELETE\s+FROM)\s+({_NAME})", re.IGNORECASE)
_FILLED = re.compile(r"\b(DEFAULT|GENERATED|IDENTITY|AUTO_INCREMENT|(?:BIG|SMALL)?SERIAL)\b", re.IGNORECASE)

# Clauses of ALTER TABLE, the first that fits. An index is none of these: it changes no answer.
_CLAUSES: tuple[tuple[str, Kind | None, str], ...] = (
    (r"DROP\s+(?:CONSTRAINT|INDEX|KEY|FOREIGN|PRIMARY|CHECK)\b", "expand", "loosens"),
    (r"DROP\b", "contract", "drops a column of"),
    (r"RENAME\b", "contract", "renames in"),
    (r"SET\s+SCHEMA\b", "contract", "moves"),
    (r"(?:MODIFY|CHANGE)\b", "contract", "changes a column of"),
    (r"ALTER\s+(?:COLUMN\s+)?\S+\s+(?:SET\s+DATA\s+)?TYPE\b", "contract", "changes the type of a column of"),
    (r"ALTER\s+(?:COLUMN\s+)?\S+\s+SET\s+NOT\s+NULL\b", "contract", "forbids NULL in a column of"),
    (r"ALTER\s+(?:COLUMN\s+)?\S+\s+DROP\s+DEFAULT\b", "contract", "takes a default from"),
    (r"ALTER\b", "expand", "loosens"),
    (r"ADD\s+(?:CONSTRAINT|UNIQUE|CHECK|FOREIGN|PRIMARY|EXCLUDE)\b", "contract", "adds a constraint to"),
    (r"ADD\s+(?:INDEX|KEY|FULLTEXT|SPATIAL)\b", None, ""),
    (r"ADD\b", "expand", "adds a column to"),
)
_ALONE = re.compile(r"ADD\b(?!\s+(?:CONSTRAINT|UNIQUE|CHECK|FOREIGN|PRIMARY|EXCLUDE)\b).*\bNOT\s+NULL\b", re.I | re.S)


def read(text: str) -> Iterator[Operation]:
    """Operations of a script. Changes of a table that the script itself creates are part of the creation."""
    statements = list(_statements(text))
    made = {_plain(found[2]) for _, statement in statements if (found := _CREATE.match(statement))}
    for line, statement in statements:
        if found := _CREATE.match(statement):
            yield Operation("expand", line, f"creates {found[1].lower()} {found[2]}")
        elif (found := _ALTER.match(statement)) and _plain(found[1]) not in made:
            for clause in _split(found[2]):
                yield from _clause(found[1], clause, line)
        elif (found := _DROP.match(statement)) and _plain(found[2]) not in made:
            yield Operation("contract", line, f"drops {' '.join(found[1].lower().split())} {found[2]}")
        elif (found := _UNIQUE.match(statement)) and _plain(found[1]) not in made:
            yield Operation("contract", line, f"makes something unique in {found[1]}")
        elif (found := _ROWS.match(statement)) and _plain(found[1]) not in made:
            yield Operation("contract", line, f"deletes rows of {found[1]}")
        elif _RENAME.match(statement):
            yield Operation("contract", line, "renames something")


def _clause(table: str, clause: str, line: int) -> Iterator[Operation]:
    fits = next((one for one in _CLAUSES if re.match(one[0], clause, re.IGNORECASE)), None)
    if fits and fits[1]:
        yield Operation(fits[1], line, f"{fits[2]} {table}")
    if _ALONE.match(clause) and not _FILLED.search(clause):
        yield Operation("contract", line, f"adds a column to {table} that others do not fill: no DEFAULT")


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each with the line it begins in, without comments and what is in quotes."""
    plain = _UNREAD.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    at = 0
    for part in plain.split(";"):
        begin = at + len(part) - len(part.lstrip())
        if part.strip():
            yield plain.count("\n", 0, begin) + 1, part.strip()
        at += len(part) + 1


def _split(clauses: str) -> Iterator[str]:
    """At commas outside of parentheses."""
    depth, begin = 0, 0
    for at, character in enumerate(clauses):
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            yield clauses[begin:at].strip()
            begin = at + 1
    yield clauses[begin:].strip()


def _plain(name: str) -> str:
    """Without quotes and schema."""
    return re.sub(r'["`\[\]]', "", name).rpartition(".")[2].lower()
