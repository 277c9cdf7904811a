"""Read commits: messages, files, history and differences. All raise SourceError."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from headway.domain.errors import SourceError
from headway.scm.git.command import FULL_SHA, LOCAL_TIMEOUT, commit_of, git, run

__all__ = [
    "Commit",
    "changed_paths",
    "commits_between",
    "file_of",
    "fork_point",
    "is_ancestor",
    "message_of",
    "tree_of",
    "unknown",
]


class Commit(NamedTuple):
    """One line of a log."""

    sha: str
    author: str
    subject: str


def unknown(repo: Path, shas: Collection[str]) -> set[str]:
    """Those that are not commits, or tags of commits, in this repository."""
    names = list(shas)
    stdin = "".join(f"{sha}^{{commit}}\n" for sha in names)
    lines = git("cat-file", "--batch-check", cwd=repo, stdin=stdin).splitlines()
    return {sha for sha, line in zip(names, lines, strict=True) if line.endswith((" missing", " ambiguous"))}


def message_of(repo: Path, sha: str) -> str:
    """The whole message of a commit."""
    return git("show", "--no-patch", "--format=%B", sha, cwd=repo)


def file_of(repo: Path, sha: str, path: str, *, limit: int) -> str | None:
    """The text of a file in a commit; None if the file does not exist or has more than `limit` bytes."""
    name = f"{sha}:{path}"
    result = run(["cat-file", "-s", name], repo, LOCAL_TIMEOUT)
    if result.returncode or int(result.stdout) > limit:
        return None
    return git("cat-file", "blob", name, cwd=repo)


def changed_paths(repo: Path, old: str | None, new: str) -> list[str] | None:
    """Files that differ between two commits; None if `old` is unknown here, so that any file may differ."""
    if old is None or not FULL_SHA.fullmatch(old) or not commit_of(repo, old):
        return None
    return [path for path in git("diff", "--name-only", "--no-renames", "-z", old, new, cwd=repo).split("\0") if path]


def fork_point(repo: Path, base: str, head: str) -> str | None:
    """The newest common ancestor of two commits; None if there is none."""
    result = run(["merge-base", base, head], repo, LOCAL_TIMEOUT)
    return result.stdout.strip() or None if not result.returncode else None


def is_ancestor(repo: Path, older: str, newer: str) -> bool:
    """Whether the history of `newer` contains `older`; False when the repository does not have one of them."""
    return not run(["merge-base", "--is-ancestor", older, newer], repo, LOCAL_TIMEOUT).returncode


def tree_of(repo: Path, sha: str, paths: Sequence[str]) -> str:
    """A hash (hex) of these files and directories in a commit. It changes if and only if one of the files does.

    Raises SourceError for a path that is not in the commit.
    """
    found = {}
    for path in sorted({os.path.normpath(path) for path in paths}):
        name = f"{sha}^{{tree}}" if path == "." else f"{sha}:{path}"
        result = run(["rev-parse", "--verify", "--quiet", "--end-of-options", name], repo, LOCAL_TIMEOUT)
        if result.returncode:
            raise SourceError(f"inputs/paths: {path}: not in the commit", "list committed files and directories")
        found[path] = result.stdout.strip()
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def commits_between(repo: Path, old: str | None, new: str, limit: int = 20) -> list[Commit]:
    """The newest `limit` commits that are in `new` and not in `old`, newest first. Without `old`: the whole history.

    Raises SourceError when the repository does not have one of the two.
    """
    for sha in filter(None, (old, new)):
        if not commit_of(repo, sha):
            raise SourceError(f"{repo}: has no commit {sha}", "was the history rewritten after the release?")
    span = [new, f"^{old}"] if old else [new]
    rows = git("log", "-z", f"--max-count={limit}", "--format=%H%x1f%an <%ae>%x1f%s", *span, "--", cwd=repo)
    return [Commit(*row.split("\x1f", 2)) for row in rows.split("\0") if row]
