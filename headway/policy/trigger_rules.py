"""Which pushes start a release, and which pull requests a preview. Pure: the caller reads git and headway.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pathspec

from headway.config import FILE_NAME, PREVIEW, Settings
from headway.domain.refusal import Refusal

__all__ = ["SKIP", "preview_refusal", "push_refusal"]

SKIP = "[skip headway]"


def push_refusal(ref: str, settings: Settings, changed: Sequence[str] | None, message: str) -> Refusal | None:
    """Why a push of this ref starts no release; None if it starts one.

    `changed` are the paths that differ from the last release, None if that is unknown. `message` is the message of the
    pushed commit.
    """
    if SKIP in message:
        return Refusal(f"the commit message has {SKIP}")
    kind, name = ref.removeprefix("refs/").split("/", 1)
    if kind == "tags":
        return _tag_refusal(name, settings.on.tags)
    if name != settings.branch:
        return Refusal(f"only pushes to {settings.branch} start a release")
    return _path_refusal(settings, changed)


def preview_refusal(base: str, settings: Settings, changed: Sequence[str] | None, message: str) -> Refusal | None:
    """Why a pull request into the branch `base` gets no checks and no preview environment; None if it gets them.

    `changed` are the paths that differ from the fork point. `message` is the message of its newest commit.
    """
    if SKIP in message:
        return Refusal(f"the commit message has {SKIP}")
    if base != settings.branch:
        return Refusal(f"it is into {base}: only pull requests into {settings.branch} have previews")
    if not settings.checks and PREVIEW not in settings.environments:
        return Refusal(f"{FILE_NAME} has no checks and no environment {PREVIEW}")
    return _path_refusal(settings, changed)


def _tag_refusal(name: str, patterns: Sequence[str]) -> Refusal | None:
    if any(fnmatchcase(name, pattern) for pattern in patterns):
        return None
    return Refusal(f"no pattern of on/tags matches {name}" if patterns else "tags start nothing: on/tags is empty")


def _path_refusal(settings: Settings, changed: Sequence[str] | None) -> Refusal | None:
    if settings.on.paths and changed is not None:
        patterns = pathspec.GitIgnoreSpec.from_lines(settings.on.paths)
        if not any(path == FILE_NAME or patterns.match_file(path) for path in changed):
            return Refusal("no changed path matches on/paths")
    return None
