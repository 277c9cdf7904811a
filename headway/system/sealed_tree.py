"""Directories whose content does not change: sealed when they are built, compared with their digest at each launch.

Standard library only: the launcher compares them too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headway.domain.errors import BuildFailed

__all__ = ["Entry", "changes", "digest_of", "entries", "manifest_file", "manifest_of", "seal"]

WRITABLE = 0o7222  # setuid, setgid and sticky are no part of a sealed mode either


class Entry(NamedTuple):
    """A file, directory or link of a tree."""

    path: str  # below the tree
    mode: int
    size: int
    link: str | None

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def executable(self) -> bool:
        return bool(self.mode & stat.S_IXUSR)


def entries(tree: Path) -> Iterator[Entry]:
    """Files, directories and links of a tree, sorted by path. Links are not followed."""
    found = []
    for directory, directories, files in os.walk(tree, onerror=_raise):
        for name in (*directories, *files):
            path = Path(directory, name)
            status = path.lstat()
            # Not Path.readlink, which normalizes `./a` to `a`.
            link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None  # noqa: PTH115
            found.append(Entry(str(path.relative_to(tree)), status.st_mode, status.st_size, link))
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise error


def digest_of(tree: Path) -> str:
    """SHA-256 (hex) of a directory's content, which is that of its manifest. Raises BuildFailed."""
    return hashlib.sha256(manifest_of(tree)).hexdigest()


def manifest_of(tree: Path) -> bytes:
    """One line of kind, path, and content hash or link target for each path, sorted, with NUL in between.

    Raises BuildFailed for entries that are neither file, directory nor link.
    """
    return b"".join(_line(tree, entry) for entry in entries(tree))


def _line(tree: Path, entry: Entry) -> bytes:
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
    return ("\0".join(line) + "\n").encode(errors="surrogateescape")


def manifest_file(place: Path) -> Path:
    """The file beside a store's sealed trees that keeps the manifest of the one at STORE/sha256/HEX."""
    return place.parent.parent / "manifests" / place.name


def seal(tree: Path) -> None:
    """Take the right to write from all files and directories of a tree. Their right to be read or run stays."""
    for entry in entries(tree):
        if entry.link is None:
            (tree / entry.path).chmod(stat.S_IMODE(entry.mode) & ~WRITABLE)
    tree.chmod(stat.S_IMODE(tree.stat().st_mode) & ~WRITABLE)


def changes(tree: Path, digest: str, manifest: Path) -> list[str]:
    """What differs from the sealed tree with this digest (hex), such as `app.py: has other content`; empty: nothing.

    `manifest` is the file with the manifest of that time. Without it, or when it was changed as well, the paths are not
    known.
    """
    found = [(entry, _line(tree, entry)) for entry in entries(tree)]
    if hashlib.sha256(b"".join(line for _, line in found)).hexdigest() == digest:
        return [
            f"{entry.path}: has the mode {stat.S_IMODE(entry.mode):04o}"
            for entry, _ in found
            if entry.link is None and entry.mode & WRITABLE
        ]
    try:
        sealed = manifest.read_bytes()
    except OSError:
        sealed = b""
    if hashlib.sha256(sealed).hexdigest() != digest:
        return ["its content has another digest"]
    return _differences(_parsed(sealed), _parsed(b"".join(line for _, line in found)))


def _parsed(manifest: bytes) -> dict[str, tuple[str, str]]:
    """Path -> kind and content."""
    kind, *fields = manifest.decode(errors="surrogateescape").split("\0")
    found = {}
    for path, rest in zip(fields[::2], fields[1::2], strict=True):
        content, _, following = rest.rpartition("\n")  # of this line, and the kind of the next one
        found[path] = kind, content
        kind = following
    return found


def _differences(sealed: dict[str, tuple[str, str]], present: dict[str, tuple[str, str]]) -> list[str]:
    found = []
    for path in sorted(sealed.keys() | present.keys()):
        if path not in present:
            found.append(f"{path}: is gone")
        elif path not in sealed:
            found.append(f"{path}: was added")
        elif sealed[path][0] != present[path][0]:
            found.append(f"{path}: was a {sealed[path][0]}, is a {present[path][0]}")
        elif sealed[path] != present[path]:
            found.append(f"{path}: has other content")
    return found
