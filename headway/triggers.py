"""What a push starts. Pure: what git and headway.yaml say is read before."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pathspec

from headway.settings import FILE_NAME, Settings

__all__ = ["SKIP", "why_not"]

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
    if on.paths and changed is not None:
        wanted = pathspec.GitIgnoreSpec.from_lines(on.paths)
        if not any(path == FILE_NAME or wanted.match_file(path) for path in changed):
            return "it changes nothing that on/paths names"
    return ""
