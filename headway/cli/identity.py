"""The person at the command line."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

__all__ = ["current_user"]


def current_user(repo: Path) -> str:
    """Email address that git has for the repository, or the login name."""
    configured = subprocess.run(
        ["git", "-C", str(repo), "config", "user.email"], capture_output=True, text=True, timeout=10, check=False
    )
    return configured.stdout.strip() or getpass.getuser()
