"""Read files that an app's commit or command has written: never another file, never without an end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["NotReadable", "read"]


class NotReadable(ValueError):
    """Why a file is not read, for a sentence that begins with its name."""


def read(path: Path, root: Path, limit: int) -> bytes:
    """The content of a regular file below `root`, at most `limit` bytes.

    Raises NotReadable for a symbolic link, for a path that leads out of `root`, for a device or pipe, and for more
    bytes; OSError when it cannot be read.
    """
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise NotReadable("lies outside of the repository")
    if path.is_symlink():
        raise NotReadable("is a symbolic link, which is not followed: make it a file")
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadable("is not a regular file")
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        content = file.read(limit + 1)
    if len(content) > limit:
        raise NotReadable(f"is larger than {_size(limit)}")
    return content


def _size(limit: int) -> str:
    return f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 1024} KiB"
