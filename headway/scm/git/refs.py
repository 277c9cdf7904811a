"""Resolve a directory or a ref that a user names to a commit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from headway.domain.errors import SourceError
from headway.scm.git.command import FULL_SHA, commit_of, git, without_credentials

__all__ = ["FETCH_TIMEOUT", "LocalRepo", "inspect", "local_directory", "resolve"]

FETCH_TIMEOUT = 600.0  # seconds


class LocalRepo(NamedTuple):
    """A local repository and a commit of it."""

    root: Path  # top of the work tree, or the bare repository
    sha: str
    ref: str
    untracked: tuple[str, ...] = ()  # files that are in no commit; not looked for when a ref is named


def inspect(path: Path, ref: str | None = None) -> LocalRepo:
    """The repository that contains `path` and the commit of `ref`, by default HEAD of a work tree without changes.

    Raises SourceError when `path` is in no repository, the repository has no commit, the ref is unknown, or, without a
    ref, when the repository is bare or has uncommitted changes. Untracked files are returned.
    """
    if not path.is_dir():
        raise SourceError(f"{path}: no such directory", "name the directory of a git repository")
    bare = git("rev-parse", "--is-bare-repository", cwd=path).strip() == "true"
    if bare:
        root = Path(git("rev-parse", "--absolute-git-dir", cwd=path).strip())
    elif git("rev-parse", "--is-inside-work-tree", cwd=path).strip() == "true":
        root = Path(git("rev-parse", "--show-toplevel", cwd=path).rstrip("\n"))
    else:
        raise SourceError(f"{path}: is inside a .git directory", "name the directory of the work tree")
    if ref is not None:
        return LocalRepo(root, resolve(str(root), ref), ref)
    if bare:
        raise SourceError(f"{path}: is a bare repository: name a commit with --ref", "for example: --ref main")
    if not (sha := commit_of(root, "HEAD")):
        raise SourceError(f"{root}: has no commit yet", "commit something first: git add -A && git commit")
    files = git("status", "--porcelain", cwd=root).splitlines()
    if changed := [line[3:] for line in files if not line.startswith("??")]:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        raise SourceError(
            f"{root}: has uncommitted changes: {shown}", "commit or stash them, or name the commit: --ref HEAD"
        )
    untracked = tuple(line[3:] for line in files if line.startswith("??"))
    return LocalRepo(root, sha, git("rev-parse", "--abbrev-ref", "HEAD", cwd=root).strip(), untracked)


def resolve(repo: str, ref: str) -> str:
    """The full sha of a branch, tag or sha in the repository at a path or URL.

    A full sha is returned as it is. A local repository takes every revision that git understands, a remote one only
    branches, tags and full names (`refs/...`). A tag wins over a branch of the same name, as in git. Raises SourceError
    for an unknown ref, with the most similar names.
    """
    if FULL_SHA.fullmatch(ref.lower()):
        return ref.lower()
    if not ref or ref.startswith("-"):
        raise SourceError(
            f"{without_credentials(repo)}: {ref!r} is not a branch, tag or commit", "name a branch, a tag or a full sha"
        )
    local = local_directory(repo)
    if local:
        found, names = commit_of(local, ref), _local_names(local)
    else:
        refs = _remote_refs(repo)
        candidates = (ref, f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}")
        found = next((refs[name] for name in candidates if name in refs), None)
        names = [_short_name(name) for name in refs]
    if found:
        return found
    raise SourceError(
        f"{without_credentials(repo)}: no branch, tag or commit {ref!r}", _similar_names(ref, names, remote=not local)
    )


def _similar_names(ref: str, names: Sequence[str], *, remote: bool) -> str:
    known = sorted({name for name in names if not name.endswith("^{}")})
    similar = difflib.get_close_matches(ref, known, n=3, cutoff=0.5)
    if similar:
        return f"did you mean {' or '.join(similar)}?"
    if remote and re.fullmatch(r"[0-9a-f]{4,39}", ref):
        return "use the full sha of 40 digits: remote repositories do not resolve shorter ones"
    return f"it has {', '.join(known[:5])}{' ...' if len(known) > 5 else ''}" if known else "it has no commit yet"


def _short_name(name: str) -> str:
    return re.sub("^refs/(heads|tags)/", "", name)


def local_directory(repo: str) -> Path | None:
    """The directory of a local repository; None for a URL, which git recognizes in the same way.

    Raises SourceError when there is no such directory.
    """
    path = Path(repo).expanduser()
    if path.is_dir():
        return path.resolve()
    if "://" in repo or re.match(r"[^/-][^/]*:", repo):
        return None
    raise SourceError(
        f"{without_credentials(repo)}: no such directory", "name the directory or the URL of a git repository"
    )


def _local_names(repo: Path) -> list[str]:
    return [_short_name(name) for name in git("for-each-ref", "--format=%(refname)", cwd=repo).splitlines()]


def _remote_refs(repo: str) -> dict[str, str]:
    rows = git("ls-remote", "--", repo, timeout=FETCH_TIMEOUT).splitlines()
    return {name: sha for sha, name in (row.split("\t", 1) for row in rows)}
