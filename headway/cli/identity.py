"""Who is at the command line."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

__all__ = ["me"]


def me(repo: Path) -> str:
    """Who works here: git's user of the repository, or the login name."""
    asked = subprocess.run(
        ["git", "-C", str(repo), "config", "user.email"], capture_output=True, text=True, timeout=10, check=False
    )
    return asked.stdout.strip() or getpass.getuser()
