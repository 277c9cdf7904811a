"""Build a bundle: the artifact of a target without containers, a directory named after the hash of its content."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shlex
import stat
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import filelock

from headway.domain.errors import BuildFailed, CommandFailed
from headway.domain.ports import Runner
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.domain.workload import Workload
from headway.scm import git
from headway.system import directories as trees
from headway.system.runners.host import HostRunner

__all__ = ["build", "digest_of", "export", "prune"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# git prints "unable to write file" without the cause. In a directory that was just created, the cause is a full disk.
SAYS_FULL = re.compile("no space left on device|quota exceeded|file too large|unable to write file", re.IGNORECASE)


async def build(
    commit: Source,
    install: Workload | None,
    *,
    runner: Runner,
    store: Path,
    on_line: Callable[[str], None],
) -> Artifact:
    """Export the files of a commit and run `install` in them. Its workspace is replaced by the place of the bundle.

    Guarantees:

    * The artifact is STORE/sha256/HEX. HEX is the SHA-256 of its content: every path, sorted, with its kind, executable
      bit, and bytes or link target. Times, owners and other permission bits are not hashed. Files are read-only.
    * The same files, command and environment are built once on a machine. A second build returns the existing artifact,
      so the digest does not depend on `install` being reproducible, which few installers are.
    * `install` runs in the final directory, STORE/trees/KEY, where KEY is a hash of files, command and environment.
      STORE/sha256/HEX is a link to it. Absolute paths that `install` writes, as virtual environments do, therefore stay
      valid on this machine and for this store.
    * The artifact appears complete or not at all. Concurrent builds of the same key run once.

    Raises BuildFailed when `install` fails or times out, a symbolic link points outside the tree, or the disk is full.
    Links to the interpreter of a virtual environment may point outside.
    """
    key = _key(commit.tree, install)
    timeout = install.timeout if install else git.LOCAL_TIMEOUT
    tree = store / "trees" / key
    with _said_when_full(store):
        for directory in ("sha256", "trees", "keys"):
            (store / directory).mkdir(parents=True, exist_ok=True)
        async with _locked(store, key, timeout):
            if known := _known(store, key):
                on_line(f"built before: sha256:{known.name}")
                return await asyncio.to_thread(_artifact, known)
            try:
                await _fill(tree, commit, install, runner, on_line)
                return await asyncio.to_thread(_seal, store, key, tree)
            finally:
                if not _known(store, key):
                    await asyncio.to_thread(trees.remove, tree)


def _key(tree: str, install: Workload | None) -> str:
    seen = [tree, install.command if install else None, sorted(install.env.items()) if install else []]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:24]


@contextlib.asynccontextmanager
async def _locked(store: Path, key: str, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - filelock's
    """Hold the lock of this tree. The kernel releases it when its process dies."""
    lock = filelock.AsyncFileLock(store / "trees" / f"{key}.lock", timeout=timeout)
    try:
        async with lock:
            yield
    except filelock.Timeout as error:
        raise BuildFailed(
            f"build: the same is being built by another process for over {timeout:g} s", "try again when it is done"
        ) from error


@contextlib.contextmanager
def _said_when_full(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _full(store, error.strerror or "no space left") from error


def _full(store: Path, reason: str) -> BuildFailed:
    return BuildFailed(f"build: {store}: {reason}; nothing of the build was kept", "make room on that disk, then retry")


# --- filling a tree ----------------------------------------------------------------------------------------------


async def _fill(
    tree: Path, commit: Source, install: Workload | None, runner: Runner, on_line: Callable[[str], None]
) -> None:
    await export(commit, tree, on_line)
    await asyncio.to_thread(_refuse_escapes, tree)
    if install:
        await _run(replace(install, workspace=tree, name="build/install"), runner)
        await asyncio.to_thread(_refuse_escapes, tree)


async def export(commit: Source, tree: Path, on_line: Callable[[str], None]) -> None:
    """Write the files of the commit to this directory, without files that checks left in the workspace.

    Raises BuildFailed.
    """
    await asyncio.to_thread(_empty, tree)
    index = tree.with_suffix(".index")
    argvs, git_env = git.export_command(git.mirror_of(commit.workspace), commit.sha, tree, index)
    command = " && ".join(map(shlex.join, argvs))
    try:
        await _run(Workload(command, tree, git_env, git.LOCAL_TIMEOUT, on_line, "build"), HostRunner())
    finally:
        index.unlink(missing_ok=True)


def _empty(tree: Path) -> None:
    trees.remove(tree)
    tree.mkdir()


async def _run(workload: Workload, runner: Runner) -> None:
    try:
        finished = await runner.run(workload)
    except CommandFailed as error:
        raise BuildFailed(error.what, error.hint) from error
    if not finished.exit_code:
        return
    last = next((line for line in reversed(finished.tail) if line.strip()), "it printed nothing")
    if full := next(filter(SAYS_FULL.search, finished.tail), None):
        raise _full(workload.workspace.parent.parent, full.strip())
    raise BuildFailed(
        f"{workload.name}: exit code {finished.exit_code}: {last.strip()}", "its output is in the log of the build"
    )


def _refuse_escapes(tree: Path) -> None:
    """Raise BuildFailed for a link out of the tree: what it points to differs between machines and over time."""
    root = os.path.realpath(tree)
    for entry in _entries(tree):
        path = tree / entry.path
        if entry.link is None or Path(os.path.realpath(path)).is_relative_to(root) or _is_interpreter(path):
            continue
        raise BuildFailed(
            f"build: {entry.path} is a link to {entry.link}, outside of the build",
            "make it a file, or a link to something inside",
        )


def _is_interpreter(link: Path) -> bool:
    """Whether this is bin/python of a virtual environment, which `python -m venv` links to its base interpreter."""
    return (
        link.parent.name == "bin"
        and link.name.startswith("python")
        and (link.parent.parent / "pyvenv.cfg").is_file()
        and Path(os.path.realpath(link)).name.startswith("python")
    )


# --- content hash ------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    path: str  # below the tree
    kind: int  # stat.S_IFMT
    executable: bool
    size: int
    link: str | None


def _entries(tree: Path) -> Iterator[_Entry]:
    """Files, directories and links of a tree, sorted by path. Links are not followed."""
    found = []
    for directory, directories, files in os.walk(tree, onerror=_raise):
        for name in (*directories, *files):
            path = Path(directory, name)
            status = path.lstat()
            # Not Path.readlink, which normalizes `./a` to `a`.
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None  # noqa: PTH115
            kind, executable = stat.S_IFMT(status.st_mode), bool(status.st_mode & stat.S_IXUSR)
            found.append(_Entry(str(path.relative_to(tree)), kind, executable, status.st_size, link))
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise error


def digest_of(tree: Path) -> str:
    """SHA-256 (hex) of a directory's content: one line of kind, path and content hash for each path, sorted.

    Raises BuildFailed for entries that are neither file, directory nor link.
    """
    digest = hashlib.sha256()
    for entry in _entries(tree):
        if entry.link is not None:
            line = ("link", entry.path, entry.link)
        elif entry.kind == stat.S_IFDIR:
            line = ("directory", entry.path, "")
        elif entry.kind == stat.S_IFREG:
            with (tree / entry.path).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            line = ("program" if entry.executable else "file", entry.path, content)
        else:
            raise BuildFailed(f"build: {entry.path} is neither file, directory nor link", "have the build remove it")
        digest.update(("\0".join(line) + "\n").encode(errors="surrogateescape"))
    return digest.hexdigest()


def _seal(store: Path, key: str, tree: Path) -> Artifact:
    """Make the files of a tree read-only, and link it under its content hash and its key."""
    for entry in _entries(tree):
        if entry.kind == stat.S_IFREG:
            path = tree / entry.path
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    digest = digest_of(tree)
    place = store / "sha256" / digest
    if place.exists():
        trees.remove(tree)
    else:
        _put(place, lambda temporary: temporary.symlink_to(Path("..", "trees", key)))
    _put(store / "keys" / key, lambda temporary: temporary.symlink_to(Path("..", "sha256", digest)))
    return _artifact(place)


def _put(path: Path, make: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    make(temporary)
    temporary.rename(path)


def _known(store: Path, key: str) -> Path | None:
    """The artifact that was built for this key, or None."""
    record = store / "keys" / key
    return store / "sha256" / record.readlink().name if record.exists() else None


def _artifact(place: Path) -> Artifact:
    os.utime(place, follow_symlinks=False)  # time of last use, for `prune`
    size = sum(entry.size for entry in _entries(place.resolve()) if entry.kind == stat.S_IFREG)
    return Artifact(digest=f"sha256:{place.name}", location=str(place), size=size)


# --- pruning -----------------------------------------------------------------------------------------------------


def prune(store: Path, keep: Collection[str], older_than: float, *, dry_run: bool = False) -> list[str]:
    """Remove artifacts that were last used over `older_than` seconds ago, and the remains of interrupted builds.

    `keep` are digests (`sha256:...`) that stay whatever their age: live ones, and rollback targets. Builds in progress
    are skipped. Returns the removed digests; with `dry_run` nothing is removed.
    """
    before = time.time() - older_than
    gone = []
    for tree in sorted(path for path in store.glob("trees/*") if path.is_dir()):
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(f"{tree}.lock", timeout=0):
            names = [place for place in store.glob("sha256/*") if place.readlink().name == tree.name]
            digests = [f"sha256:{place.name}" for place in names]
            used = max(place.lstat().st_mtime for place in names or [tree])
            if used >= before or set(digests) & set(keep):
                continue
            gone += digests
            if dry_run:
                continue
            for place in names:
                place.unlink()
            trees.remove(tree)
    for record in store.glob("keys/*"):
        if not dry_run and not record.exists():
            record.unlink()
    return gone
