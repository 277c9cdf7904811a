"""What a push starts, and what a pull request. Pure: what git and headway.yaml say is read before."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pathspec

from headway.config import FILE_NAME, PREVIEW, Settings

__all__ = ["SKIP", "why_no_preview", "why_not"]

SKIP = "[skip headway]"


def why_not(ref: str, settings: Settings, changed: Sequence[str] | None, message: str) -> str:
    """Why a push of this ref starts no release; empty when it does.

    `changed` are the paths that differ from what was released, None when that is not known; `message` is that of the
    commit that the ref names.
    """
    if SKIP in message:
        return f"its message says {SKIP}"
    kind, name = ref.removeprefix("refs/").split("/", 1)
    on = settings.on
    if kind == "tags":
        if any(fnmatchcase(name, pattern) for pattern in on.tags):
            return ""
        return f"on/tags has no pattern for {name}" if on.tags else "tags start nothing: on/tags is empty"
    if name != settings.branch:
        return f"releases are made of {settings.branch}"
    return _nothing_that_counts(settings, changed)


def why_no_preview(base: str, settings: Settings, changed: Sequence[str] | None, message: str) -> str:
    """Why a pull request for the branch `base` is neither checked nor shown; empty when it is.

    `changed` are the paths that differ from where it left that branch, `message` is that of its newest commit.
    """
    if SKIP in message:
        return f"its message says {SKIP}"
    if base != settings.branch:
        return f"it is for {base}, and previews are of what is for {settings.branch}"
    if not settings.checks and PREVIEW not in settings.environments:
        return f"{FILE_NAME} has no checks, and no environment {PREVIEW}"
    return _nothing_that_counts(settings, changed)


def _nothing_that_counts(settings: Settings, changed: Sequence[str] | None) -> str:
    if settings.on.paths and changed is not None:
        wanted = pathspec.GitIgnoreSpec.from_lines(settings.on.paths)
        if not any(path == FILE_NAME or wanted.match_file(path) for path in changed):
            return "it changes nothing that on/paths names"
    return ""
