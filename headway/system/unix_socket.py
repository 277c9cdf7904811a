"""Where Unix sockets go."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from headway.domain.errors import UsageError

__all__ = ["socket_directory"]

# A socket's path has at most 107 bytes (unix(7)); the longest name of ours is an app's (40) and a suffix.
LONGEST_DIRECTORY = 60


def socket_directory(directory: Path) -> Path:
    """A directory for the sockets of `directory`: itself, or a short one in /tmp when its path is too long.

    It exists afterwards, for this user only.
    """
    if len(os.fsencode(directory)) < LONGEST_DIRECTORY:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    short = Path(f"/tmp/headway-{os.getuid()}-{digest}")  # noqa: S108  # mode 0700, and ours
    short.mkdir(mode=0o700, exist_ok=True)
    if short.lstat().st_uid != os.getuid():
        raise UsageError(f"{short}: belongs to another user", "remove it, or choose a shorter HEADWAY_HOME")
    return short
