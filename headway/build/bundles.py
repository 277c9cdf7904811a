"""The artifact of a target without containers: a directory named by what is in it."""

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
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import filelock

from headway.domain.errors import BuildFailed, CommandFailed
from headway.domain.revision import Artifact
from headway.domain.source import Source
from headway.scm import git
from headway.system import command_runner
from headway.system import directories as trees

__all__ = ["build", "digest_of", "export", "prune"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# The last is all that git says; nothing else keeps it from writing into a directory just made.
SAYS_FULL = re.compile("no space left on device|quota exceeded|file too large|unable to write file", re.IGNORECASE)


async def build(
    commit: Source,
    install: str | None,
    *,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - of the command, whose processes have to end with it
    store: Path,
    on_line: Callable[[str], None],
    secrets: Iterable[str] = (),
) -> Artifact:
    """The files of a commit, and what `install` (a shell command, at most `timeout` seconds) makes in them.

    What holds:

    * The artifact is STORE/sha256/HEX, and HEX is the SHA-256 of its content: every path with its kind, executable bit
      and bytes or link target, sorted; no times, owners or other bits. Its files are read-only.
    * The same files, command and environment are built once on a machine: asked again, the artifact that is there is
      the answer. So the digest does not depend on whether `install` makes the same bytes twice (few do).
    * `install` runs where its result stays, STORE/trees/KEY (KEY is hashed from files, command and environment), to
      which STORE/sha256/HEX is a link. So absolute paths that it writes down, as virtual environments do, remain true.
      They hold on this machine and for this store.
    * It appears whole or not at all, and two builds of the same at once are one.

    Raises BuildFailed when `install` fails or runs out of time, a link leads out of the tree, or the disk is full. The
    only links that may lead out are those to the interpreter in a virtual environment.
    """
    key = _key(commit.tree, install, env)
    tree = store / "trees" / key
    with _said_when_full(store):
        for directory in ("sha256", "trees", "keys"):
            (store / directory).mkdir(parents=True, exist_ok=True)
        async with _locked(store, key, timeout):
            if known := _known(store, key):
                on_line(f"built before: sha256:{known.name}")
                return await asyncio.to_thread(_artifact, known)
            try:
                await _fill(tree, commit, install, env=env, timeout=timeout, on_line=on_line, secrets=secrets)
                return await asyncio.to_thread(_seal, store, key, tree)
            finally:
                if not _known(store, key):
                    await asyncio.to_thread(trees.remove, tree)


def _key(tree: str, install: str | None, env: Mapping[str, str]) -> str:
    seen = [tree, install, sorted(env.items()) if install else []]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:24]


@contextlib.asynccontextmanager
async def _locked(store: Path, key: str, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109 - filelock's
    """One builder of this tree at a time; the kernel opens the lock of one that died."""
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
    tree: Path,
    commit: Source,
    install: str | None,
    *,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - see build
    on_line: Callable[[str], None],
    secrets: Iterable[str],
) -> None:
    await export(commit, tree, on_line)
    await asyncio.to_thread(_refuse_escapes, tree)
    if install:
        await _run(install, tree, env, timeout, on_line, secrets, "build/install")
        await asyncio.to_thread(_refuse_escapes, tree)


async def export(commit: Source, tree: Path, on_line: Callable[[str], None]) -> None:
    """Have the files of the commit in this directory, and nothing else: not what checks left in its workspace.

    Raises BuildFailed.
    """
    await asyncio.to_thread(_empty, tree)
    index = tree.with_suffix(".index")
    argvs, git_env = git.export_command(git.mirror_of(commit.workspace), commit.sha, tree, index)
    try:
        await _run(" && ".join(map(shlex.join, argvs)), tree, git_env, git.LOCAL_TIMEOUT, on_line, (), "build")
    finally:
        index.unlink(missing_ok=True)


def _empty(tree: Path) -> None:
    trees.remove(tree)
    tree.mkdir()


async def _run(
    command: str,
    tree: Path,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - see build
    on_line: Callable[[str], None],
    secrets: Iterable[str],
    name: str,
) -> None:
    try:
        finished = await command_runner.run(
            command, cwd=tree, env=env, timeout=timeout, on_line=on_line, secrets=secrets, name=name
        )
    except CommandFailed as error:
        raise BuildFailed(error.what, error.hint) from error
    if not finished.exit_code:
        return
    last = next((line for line in reversed(finished.tail) if line.strip()), "it printed nothing")
    if full := next(filter(SAYS_FULL.search, finished.tail), None):
        raise _full(tree.parent.parent, full.strip())
    raise BuildFailed(
        f"{name}: exit code {finished.exit_code}: {last.strip()}", "its output is in the log of the build"
    )


def _refuse_escapes(tree: Path) -> None:
    """A link out of the tree would make the artifact something else on every machine, and tomorrow."""
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
    """`python -m venv` links its bin/python to the one it was made with."""
    return (
        link.parent.name == "bin"
        and link.name.startswith("python")
        and (link.parent.parent / "pyvenv.cfg").is_file()
        and Path(os.path.realpath(link)).name.startswith("python")
    )


# --- naming it by its content ------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    path: str  # below the tree
    kind: int  # stat.S_IFMT
    executable: bool
    size: int
    link: str | None


def _entries(tree: Path) -> Iterator[_Entry]:
    """All that is in a tree, by path; links are not followed."""
    found = []
    for directory, directories, files in os.walk(tree, onerror=_raise):
        for name in (*directories, *files):
            path = Path(directory, name)
            status = path.lstat()
            # Not Path.readlink, which tidies `./a` up to `a`.
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None  # noqa: PTH115
            kind, executable = stat.S_IFMT(status.st_mode), bool(status.st_mode & stat.S_IXUSR)
            found.append(_Entry(str(path.relative_to(tree)), kind, executable, status.st_size, link))
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise error


def digest_of(tree: Path) -> str:
    """SHA-256 (hex) of what is in a directory: for each path in order a line of kind, path and content.

    Raises BuildFailed for what is neither file, directory nor link.
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
    """Make a filled tree read-only and let it be found by its content."""
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
    """The artifact that was built for this key, if it is still there."""
    record = store / "keys" / key
    return store / "sha256" / record.readlink().name if record.exists() else None


def _artifact(place: Path) -> Artifact:
    os.utime(place, follow_symlinks=False)  # used now: `prune` looks at it
    size = sum(entry.size for entry in _entries(place.resolve()) if entry.kind == stat.S_IFREG)
    return Artifact(digest=f"sha256:{place.name}", location=str(place), size=size)


# --- forgetting --------------------------------------------------------------------------------------------------


def prune(store: Path, keep: Collection[str], older_than: float) -> list[str]:
    """Remove artifacts that were last built or asked for over `older_than` seconds ago, and what died builds left.

    `keep` are digests (`sha256:...`) that stay whatever their age: those that run, and those to roll back to. Returns
    the digests that went. What is being built right now is left alone.
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
            for place in names:
                place.unlink()
            trees.remove(tree)
            gone += digests
    for record in store.glob("keys/*"):
        if not record.exists():
            record.unlink()
    return gone
