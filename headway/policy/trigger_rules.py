"""Which pushes start a release, and which pull requests a preview. Pure: the caller reads git and headway.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pathspec

from headway.config import FILE_NAME, PREVIEW, Settings
from headway.domain.base import Frozen
from headway.domain.refusal import Refusal

__all__ = ["SKIP", "ReleaseRefs", "merge_group_refusal", "preview_refusal", "push_refusal"]

SKIP = "[skip headway]"


class ReleaseRefs(Frozen):
    """What may be released: a branch, and tags that match a pattern. No commit can say this of itself."""

    branch: str
    tags: tuple[str, ...] = ()


def push_refusal(
    ref: str, refs: ReleaseRefs, settings: Settings, changed: Sequence[str] | None, message: str
) -> Refusal | None:
    """Why a push of this ref starts no release; None if it starts one.

    `settings` and `message` are those of the pushed commit. `changed` are the paths that differ from the last release,
    None if that is unknown.
    """
    if SKIP in message:
        return Refusal(f"the commit message has {SKIP}")
    kind, name = ref.removeprefix("refs/").split("/", 1)
    if kind == "tags":
        return _tag_refusal(name, refs.tags)
    if name != refs.branch:
        return Refusal(f"only pushes to {refs.branch} start a release")
    return _path_refusal(settings, changed)


def preview_refusal(
    base: str, refs: ReleaseRefs, settings: Settings, changed: Sequence[str] | None, message: str
) -> Refusal | None:
    """Why a pull request into the branch `base` gets no checks and no preview environment; None if it gets them.

    `changed` are the paths that differ from the fork point. `message` is the message of its newest commit.
    """
    if SKIP in message:
        return Refusal(f"the commit message has {SKIP}")
    if base != refs.branch:
        return Refusal(f"it is into {base}: only pull requests into {refs.branch} have previews")
    if not settings.checks and PREVIEW not in settings.environments:
        return Refusal(f"{FILE_NAME} has no checks and no environment {PREVIEW}")
    return _path_refusal(settings, changed)


def merge_group_refusal(base: str, refs: ReleaseRefs) -> Refusal | None:
    """Why a merge group into the branch `base` gets no checks; None if it gets them.

    A group without checks, or without changes that count, passes: its queue would wait for the status for ever.
    """
    return None if base == refs.branch else Refusal(f"it is into {base}: only {refs.branch} is released")


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
