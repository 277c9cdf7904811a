"""From which branches and tags of a repository a commit can be reached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from headway.scm.git.command import git
from headway.scm.git.mirror import FETCH, locked, repository_directory
from headway.scm.git.refs import FETCH_TIMEOUT

__all__ = ["reached_from"]

_FETCHED = "refs/headway/origin"  # where the mirror has the refs of the origin


def reached_from(
    repo: str, sha: str, workspaces: Path, allowed: Callable[[str], bool], *, timeout: float = FETCH_TIMEOUT
) -> str | None:
    """One of the allowed refs whose history has this commit; None if none has it.

    `allowed` is asked for HEAD, each branch (`refs/heads/main`) and each tag (`refs/tags/v1`). Other refs, such as
    those of pull requests, do not count. Raises SourceError when the repository does not answer.
    """
    origin, directory = repository_directory(repo, workspaces)
    tips = {ref: tip for ref, tip in _refs(origin, timeout).items() if allowed(ref)}
    if found := next((ref for ref, tip in tips.items() if tip == sha), None):
        return found
    mirror, names = directory / "mirror.git", {_name(ref): ref for ref in tips}
    with locked(directory / "mirror.lock", timeout):
        if wanted := "".join(f"+{ref}:{name}\n" for name, ref in names.items()):
            git(*FETCH, "--stdin", "--", origin, cwd=mirror, timeout=timeout, stdin=wanted)
        having = git("for-each-ref", f"--contains={sha}", "--format=%(refname)", f"{_FETCHED}/", cwd=mirror)
    return next((names[name] for name in having.splitlines() if name in names), None)


def _name(ref: str) -> str:
    """Name of a ref of the origin in the mirror, where `a` and `a/b` may have been branches one after the other."""
    return f"{_FETCHED}/{hashlib.sha256(ref.encode()).hexdigest()[:32]}"


def _refs(origin: str, timeout: float) -> dict[str, str]:
    """HEAD, branches and tags with their commits."""
    rows = git("ls-remote", "--", origin, "HEAD", "refs/heads/*", "refs/tags/*", timeout=timeout).splitlines()
    pairs = [row.split("\t", 1)[::-1] for row in rows]
    refs = {ref: sha for ref, sha in pairs if ref == "HEAD" or ref.startswith(("refs/heads/", "refs/tags/"))}
    peeled = {ref.removesuffix("^{}"): sha for ref, sha in refs.items() if ref.endswith("^{}")}
    return {ref: peeled.get(ref, sha) for ref, sha in refs.items() if not ref.endswith("^{}")}
