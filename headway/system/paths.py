"""Paths of Headway's files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_state_path

__all__ = ["command_output", "home", "ledger_url"]


def home() -> Path:
    """HEADWAY_HOME, or the user's state directory (~/.local/state/headway)."""
    named = os.environ.get("HEADWAY_HOME")
    return Path(named).absolute() if named else user_state_path("headway")


def ledger_url() -> str:
    """HEADWAY_LEDGER_URL, or a SQLite file in `home()`."""
    return os.environ.get("HEADWAY_LEDGER_URL") or f"sqlite:///{home() / 'ledger.db'}"


def command_output(release: str, command: str) -> Path:
    """File with the whole output of a command of a release: a check, the build, a migration."""
    return home() / "output" / release / f"{command}.log"
