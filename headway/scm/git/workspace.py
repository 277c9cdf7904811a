"""Workspaces: one commit checked out in its own directory."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from headway.domain.errors import SourceError
from headway.domain.source import Source
from headway.domain.text import printable
from headway.scm.git.command import LOCAL_TIMEOUT, environment, git, object_format, run, without_credentials
from headway.scm.git.mirror import fetch, locked, repository_directory
from headway.scm.git.refs import FETCH_TIMEOUT, resolve
from headway.system import directories

__all__ = ["checkout", "describe", "export_command", "prune"]

UNFINISHED = ".unfinished-"


def checkout(
    repo: str, ref: str, workspaces: Path, run: str | None = None, *, timeout: float = FETCH_TIMEOUT
) -> Source:
    """Check out the commit that `ref` has now in a new workspace.

    The workspace is WORKSPACES/<repository>/<sha>-<run>: a git repository with a detached HEAD. `run` (by default a
    random name) is the flow run that it is for; the same run gets the same workspace again. Commands of the app may
    change the workspace, so read the content of the commit from the mirror (see `mirror_of`). Workspaces share the
    objects of the mirror beside them: do not delete the mirror alone. `timeout` is for a fetch, in seconds.

    Raises SourceError when the ref or the commit is unknown, the repository does not answer, or the tree has submodules
    or Git LFS files, which are not fetched.
    """
    sha = resolve(repo, ref)
    origin, directory = repository_directory(repo, workspaces)
    mirror = directory / "mirror.git"
    workspace = directory / f"{sha}-{run or uuid.uuid4().hex[:12]}"
    with locked(directory / "mirror.lock", timeout):
        fetch(mirror, origin, sha, timeout)
        _refuse_incomplete_tree(mirror, sha, repo)
        if not workspace.exists():
            _create_workspace(mirror, sha, workspace)
    return _source(mirror, without_credentials(origin), ref, sha, workspace)


def describe(repo: str, sha: str, workspaces: Path, *, timeout: float = FETCH_TIMEOUT) -> Source:
    """The same description of a commit as `checkout` returns, without a workspace.

    Raises SourceError when the commit is unknown or the repository does not answer.
    """
    origin, directory = repository_directory(repo, workspaces)
    with locked(directory / "mirror.lock", timeout):
        fetch(directory / "mirror.git", origin, sha, timeout)
    return _source(directory / "mirror.git", without_credentials(origin), sha, sha, None)


def _refuse_incomplete_tree(mirror: Path, sha: str, repo: str) -> None:
    """Refuse what git would leave out without an error: submodules and the content of files in Git LFS."""
    entries = git("ls-tree", "-r", "-z", sha, cwd=mirror).split("\0")
    if modules := [entry.split("\t", 1)[1] for entry in entries if entry.startswith("160000 ")]:
        raise SourceError(
            f"{without_credentials(repo)}: {sha[:7]} has submodules ({', '.join(modules[:3])}), which are not fetched",
            "keep their files in the repository (git subtree), or install them as packages",
        )
    filters = run(["grep", "-l", "filter=lfs", sha, "--", ":(glob)**/.gitattributes"], mirror, LOCAL_TIMEOUT)
    if filters.returncode == 0:
        raise SourceError(
            f"{without_credentials(repo)}: {sha[:7]} keeps files in Git LFS, which are not fetched",
            "keep them in the repository, or download them in build/install",
        )


def _create_workspace(mirror: Path, sha: str, workspace: Path) -> None:
    unfinished = workspace.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:12]}")
    try:
        git("init", "--quiet", "--template=", object_format(sha), str(unfinished))
        alternates = unfinished / ".git" / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        alternates.write_text(f"{mirror / 'objects'}\n")
        git("-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", sha, cwd=unfinished)
        unfinished.rename(workspace)
    finally:
        directories.remove(unfinished)


def _source(mirror: Path, repo: str, ref: str, sha: str, workspace: Path | None) -> Source:
    fields = git("show", "--no-patch", "--format=%T%x00%an <%ae>%x00%s%x00%cI", sha, cwd=mirror)
    tree, author, subject, committed = fields.rstrip("\n").split("\0")
    return Source(
        repo=repo,
        ref=ref,
        sha=sha,
        tree=tree,
        author=printable(author),
        subject=printable(subject),
        committed_at=datetime.fromisoformat(committed),
        workspace=str(workspace or ""),
    )


def prune(workspaces: Path, *, older_than: float, keep: Collection[Path] = (), dry_run: bool = False) -> list[Path]:
    """Remove workspaces that are older than `older_than` seconds, except those in `keep`. Returns the removed ones.

    Mirrors stay, so that the next checkout is fast. With `dry_run` nothing is removed.
    """
    kept = {path.resolve() for path in keep}
    before = time.time() - older_than
    old = [
        path
        for path in sorted(workspaces.glob("*/*"))
        if path.is_dir() and path.name != "mirror.git" and path.resolve() not in kept and path.stat().st_mtime < before
    ]
    for path in [] if dry_run else old:
        directories.remove(path)
    return old


def export_command(
    mirror: Path, sha: str, into: Path, index: Path, paths: Sequence[str] = ()
) -> tuple[str, dict[str, str]]:
    """A shell command, and its environment variables, that writes files of a commit `into` a directory, without .git.

    Without `paths` it writes all of them; of `paths`, those that are in the commit.
    """
    command = ["git", "--literal-pathspecs", f"--git-dir={mirror}", f"--work-tree={into}"]
    read = shlex.join([*command, "read-tree", sha])
    listed = shlex.join([*command, "ls-files", "-z", "--", *paths])
    write = shlex.join([*command, "checkout-index", "-z", "--stdin", "--force"])
    return f"{read} && {listed} | {write}", {**environment(), "GIT_INDEX_FILE": str(index)}
