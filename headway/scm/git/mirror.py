"""Fetch commits into a mirror: a bare repository for each origin. The workspaces beside it share its objects."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import filelock

from headway.domain.errors import SourceError
from headway.scm.git.command import commit_of, failure, git, object_format, run, without_credentials
from headway.scm.git.refs import FETCH_TIMEOUT, local_directory

__all__ = ["Tip", "fetch", "fetch_tip", "locked", "mirror_of", "repository_directory"]

# git checks what it fetches. Some old commits of well-known repositories have these harmless faults.
_TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "zeroPaddedFilemode")
_VERIFIED = ("fetch.fsckObjects=true", *(f"fetch.fsck.{fault}=ignore" for fault in _TOLERATED))
FETCH = (
    *(part for setting in _VERIFIED for part in ("-c", setting)),
    *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"),
)


class Tip(NamedTuple):
    """The commit that a ref of the origin has now, and the mirror that it was fetched into."""

    mirror: Path
    sha: str


def fetch_tip(repo: str, ref: str, workspaces: Path, *, timeout: float = FETCH_TIMEOUT) -> Tip | None:
    """Fetch the newest commit of a ref such as refs/heads/main into the mirror.

    Returns None when the repository has no such ref. Raises SourceError when it does not answer within `timeout`
    seconds.
    """
    origin, directory = repository_directory(repo, workspaces)
    mirror = directory / "mirror.git"
    tip_ref = f"refs/headway/tip/{hashlib.sha256(ref.encode()).hexdigest()[:16]}"
    with locked(directory / "mirror.lock", timeout):
        if not _exists(mirror):
            known = git("ls-remote", "--", origin, timeout=timeout).split("\t", 1)[0]
            if not known:
                return None  # without a commit nothing tells its format
            _make_mirror(mirror, known)
        result = run([*FETCH, "--", origin, f"+{ref}:{tip_ref}"], mirror, timeout)
        if result.returncode and "couldn't find remote ref" in result.stderr:
            return None
        if result.returncode:
            raise failure(result, origin)
        sha = commit_of(mirror, tip_ref)
        if not sha:
            raise SourceError(f"{without_credentials(origin)}: {ref} is not a commit", "tag a commit")
        git("update-ref", f"refs/headway/{sha}", sha, cwd=mirror)  # keeps the commit when the ref moves on
    return Tip(mirror, sha)


def mirror_of(workspace: str | Path) -> Path:
    """The mirror that a workspace was created from. Commands of the app do not write to it."""
    return Path(workspace).parent / "mirror.git"


def repository_directory(repo: str, workspaces: Path) -> tuple[str, Path]:
    """The full address of a repository, and the directory of its mirror and workspaces."""
    local = local_directory(repo)
    origin = str(local) if local else repo
    directory = workspaces / _directory_name(origin)
    directory.mkdir(parents=True, exist_ok=True)
    return origin, directory


def _directory_name(origin: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", origin.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1]).strip("-")
    return f"{name[:40] or 'repo'}-{hashlib.sha256(origin.encode()).hexdigest()[:10]}"


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Lock out other processes. The kernel releases the lock of a process that dies."""
    try:
        with filelock.FileLock(path, timeout=timeout):
            yield
    except filelock.Timeout as error:
        raise SourceError(
            f"{path.parent}: another process has been fetching for over {timeout:g} s", "try again later"
        ) from error


def _exists(mirror: Path) -> bool:
    return (mirror / "HEAD").exists()


def _make_mirror(mirror: Path, sha: str) -> None:
    """Create the mirror, unless it is there, in the object format of an id of the origin."""
    if not _exists(mirror):
        git("init", "--quiet", "--bare", "--template=", object_format(sha), str(mirror))
        # Workspaces may share objects that no ref of the mirror reaches any more.
        git("config", "gc.auto", "0", cwd=mirror)


def fetch(mirror: Path, origin: str, sha: str, timeout: float) -> None:
    """Fetch one commit into the mirror, unless it is there. The caller holds the lock. Raises SourceError."""
    _make_mirror(mirror, sha)
    if commit_of(mirror, sha):
        return
    exact = run([*FETCH, "--", origin, f"+{sha}:refs/headway/{sha}"], mirror, timeout)
    if exact.returncode and not re.search("not our ref|unadvertised object|upload-pack: not", exact.stderr):
        raise failure(exact, origin)
    if exact.returncode:
        # The server only serves commits that a ref names: fetch all branches and tags.
        all_refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        git(*FETCH, "--", origin, *all_refs, cwd=mirror, timeout=timeout)
        if not commit_of(mirror, sha):
            raise SourceError(
                f"{without_credentials(origin)}: has no commit {sha}", "was it pushed to this repository?"
            )
        git("update-ref", f"refs/headway/{sha}", sha, cwd=mirror)
