"""Where tools keep their migrations."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pathspec

__all__ = ["FILES", "files_of", "is_migration"]

FILES = {
    "alembic": ("**/versions/*.py",),
    "django": ("**/migrations/*.py", "!**/migrations/__init__.py"),
    "prisma": ("**/migrations/*/migration.sql",),
    "flyway": ("**/V*__*.sql", "**/R__*.sql"),
    "rails": ("**/db/migrate/*.rb",),
}
"""Tool -> its files, in the words of a .gitignore."""

_COMMANDS = {
    "alembic": r"\b(alembic|flask\s+db)\b",
    "django": r"\b(manage\.py|django-admin|django)\b.*\bmigrate\b",
    "prisma": r"\bprisma\b",
    "flyway": r"\bflyway\b",
    "rails": r"\b(rails|rake)\b.*\bdb:migrate\b",
}


def files_of(command: str) -> tuple[str, ...]:
    """Patterns of the files that the tool in this command reads; none when it is not known."""
    return next((FILES[tool] for tool, called in _COMMANDS.items() if re.search(called, command)), ())


def is_migration(patterns: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Those of the paths, from the root of the repository, that the patterns mean."""
    return sorted(pathspec.GitIgnoreSpec.from_lines(patterns).match_files(paths))
