"""Directories that we made and may remove."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

__all__ = ["remove"]


def remove(path: Path) -> None:
    """Remove a directory and all that is in it, read-only parts included; one that is gone already is fine.

    Symbolic links in it are removed, not followed. Raises OSError when something cannot be removed.
    """
    if not path.exists():
        return
    _open(path)
    for directory, names, _ in os.walk(path):
        for name in names:
            _open(Path(directory, name))
    shutil.rmtree(path)


def _open(directory: Path) -> None:
    """To remove a file is to write its directory; package managers leave theirs read-only."""
    mode = directory.lstat().st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        directory.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)
