"""Removal of directories."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

__all__ = ["remove"]


def remove(path: Path) -> None:
    """Remove a directory with its content, read-only parts included; nothing to do when it does not exist.

    Symbolic links are removed, not followed. Raises OSError when something cannot be removed.
    """
    if not path.exists():
        return
    _make_writable(path)
    for directory, names, _ in os.walk(path):
        for name in names:
            _make_writable(Path(directory, name))
    shutil.rmtree(path)


def _make_writable(directory: Path) -> None:
    """Removing a file writes to its directory; package managers make theirs read-only."""
    mode = directory.lstat().st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        directory.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)
