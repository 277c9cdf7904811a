"""The commit of a work tree that a command is about."""

from __future__ import annotations

from pathlib import Path

from headway.cli.output import output
from headway.config import FILE_NAME
from headway.domain.errors import SourceError
from headway.scm import git

__all__ = ["committed"]

SHOWN = 5  # untracked files


def committed(path: Path, ref: str | None = None) -> git.LocalRepo:
    """The repository and the commit of `ref`, by default the checked-out one. Warns of untracked files.

    Raises SourceError, also when headway.yaml is untracked.
    """
    local = git.inspect(path, ref)
    if FILE_NAME in local.untracked:
        raise SourceError(f"{local.root}: {FILE_NAME} is not committed", f"git add {FILE_NAME} && git commit")
    if local.untracked:
        shown = ", ".join(local.untracked[:SHOWN]) + (", ..." if len(local.untracked) > SHOWN else "")
        output.warn(f"untracked files are not in the commit: {shown}")
    return local
