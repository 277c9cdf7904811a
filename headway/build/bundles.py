"""Build a bundle: the artifact of a target without containers, a directory named after the hash of its content."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import stat
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import filelock

from headway.domain.errors import BuildFailed, CommandFailed
from headway.domain.ports import Runner
from headway.domain.refusal import Refusal
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.domain.workload import Workload
from headway.scm import git
from headway.system import directories as trees
from headway.system import sealed_tree
from headway.system.runners.host import HostRunner

__all__ = ["build", "export", "prune", "refusal"]

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
      bit, and bytes or link target. Times, owners and other permission bits are not hashed. Files and directories are
      read-only. STORE/manifests/HEX is the list that is hashed.
    * The same files, command, environment and home directory are built once on a machine. A second build returns the
      existing artifact, so the digest does not depend on `install` being reproducible, which few installers are.
      Builds with another home directory, such as those of forks, share none: its caches can change the result.
    * `install` runs in the final directory, STORE/trees/KEY, where KEY is a hash of these.
      STORE/sha256/HEX is a link to it. Absolute paths that `install` writes, as virtual environments do, therefore stay
      valid on this machine and for this store.
    * The artifact appears complete or not at all. Concurrent builds of the same key run once.

    Raises BuildFailed when `install` fails or times out, a symbolic link points outside the tree, the disk is full, or
    the existing artifact was changed.
    Links to the interpreter of a virtual environment may point outside.
    """
    key = _key(commit.tree, install)
    timeout = install.timeout if install else git.LOCAL_TIMEOUT
    tree = store / "trees" / key
    with _said_when_full(store):
        for directory in ("sha256", "trees", "keys", "manifests"):
            (store / directory).mkdir(parents=True, exist_ok=True)
        async with _locked(store, key, timeout):
            if known := _known(store, key):
                on_line(f"built before: sha256:{known.name}")
                return await asyncio.to_thread(_unchanged, known)
            try:
                await _fill(tree, commit, install, runner, on_line)
                return await asyncio.to_thread(_seal, store, key, tree)
            finally:
                if not _known(store, key):
                    await asyncio.to_thread(trees.remove, tree)


def _key(tree: str, install: Workload | None) -> str:
    seen = ["sealed", tree, install.command if install else None, sorted(install.env.items()) if install else []]
    seen += [str(install.home)] if install and install.home else []
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


async def export(commit: Source, tree: Path, on_line: Callable[[str], None], paths: Sequence[str] = ()) -> None:
    """Write the files of the commit to this directory, without files that checks left in the workspace.

    With `paths`, only those of them that are in the commit. Raises BuildFailed.
    """
    await asyncio.to_thread(_empty, tree)
    index = tree.with_suffix(".index")
    command, git_env = git.export_command(git.mirror_of(commit.workspace), commit.sha, tree, index, paths)
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
    for entry in sealed_tree.entries(tree):
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


# --- sealing -----------------------------------------------------------------------------------------------------


def _seal(store: Path, key: str, tree: Path) -> Artifact:
    """Make a tree read-only, and link it under its content hash and its key, beside its manifest."""
    sealed_tree.seal(tree)
    content = sealed_tree.manifest_of(tree)
    digest = hashlib.sha256(content).hexdigest()
    place = store / "sha256" / digest
    if sealed_tree.manifest_file(place).exists() and place.exists() and not place.samefile(tree):
        trees.remove(tree)
    else:
        _put(sealed_tree.manifest_file(place), lambda temporary: temporary.write_bytes(content))
        _put(place, lambda temporary: temporary.symlink_to(Path("..", "trees", key)))
    _put(store / "keys" / key, lambda temporary: temporary.symlink_to(Path("..", "sha256", digest)))
    return _artifact(place)


def _put(path: Path, make: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        make(temporary)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def refusal(artifact: Artifact) -> Refusal | None:
    """Why this bundle cannot be launched on this machine: it is not there, or it was changed since it was built."""
    place = Path(artifact.location)
    if artifact.kind != "bundle" or not place.is_dir():
        return Refusal(f"there is no bundle {artifact.location} on this machine", "release it again")
    if not artifact.sealed:
        return None
    try:
        changed = sealed_tree.changes(place, artifact.digest.removeprefix("sha256:"), sealed_tree.manifest_file(place))
    except (OSError, BuildFailed) as error:
        changed = [str(error)]
    if not changed:
        return None
    others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return Refusal(
        f"bundle {artifact.digest[:19]} was changed after its build: {changed[0]}{others}",
        f"find out what wrote to it; to build it again: rm -r {place.resolve()}, then release the commit",
    )


def _known(store: Path, key: str) -> Path | None:
    """The artifact that was built for this key, or None."""
    record = store / "keys" / key
    return store / "sha256" / record.readlink().name if record.exists() else None


def _unchanged(place: Path) -> Artifact:
    artifact = _artifact(place)
    if refused := refusal(artifact):
        raise BuildFailed(f"build: {refused.what}", refused.hint)
    return artifact


def _artifact(place: Path) -> Artifact:
    os.utime(place, follow_symlinks=False)  # time of last use, for `prune`
    size = sum(entry.size for entry in sealed_tree.entries(place.resolve()) if entry.kind == stat.S_IFREG)
    return Artifact(digest=f"sha256:{place.name}", location=str(place), size=size, sealed=True)


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
    known = {place.name for place in store.glob("sha256/*")}
    without_tree = [record for record in store.glob("keys/*") if not record.exists()]
    without_tree += [record for record in store.glob("manifests/*") if record.name not in known]
    for record in [] if dry_run else without_tree:
        record.unlink(missing_ok=True)
    return gone
