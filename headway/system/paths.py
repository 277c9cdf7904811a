"""Paths of Headway's files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_state_path

from headway.domain.errors import HeadwayError

__all__ = ["command_output", "home", "ledger_url", "make_home"]


def home() -> Path:
    """HEADWAY_HOME, or the user's state directory (~/.local/state/headway)."""
    named = os.environ.get("HEADWAY_HOME")
    return Path(named).absolute() if named else user_state_path("headway")


def make_home() -> Path:
    """`home()`, made if it is not there. Other users get no access: it has secrets, logs and the ledger.

    Raises HeadwayError when it belongs to another user, or cannot be made.
    """
    place = home()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if place.stat().st_mode & 0o077:
            place.chmod(0o700)
    except OSError as error:
        raise HeadwayError(
            f"{place}: cannot be used as Headway's directory: {error.strerror}",
            "set HEADWAY_HOME to a directory of your own",
        ) from error
    return place


def ledger_url() -> str:
    """HEADWAY_LEDGER_URL, or a SQLite file in `home()`."""
    return os.environ.get("HEADWAY_LEDGER_URL") or f"sqlite:///{home() / 'ledger.db'}"


def command_output(release: str, command: str) -> Path:
    """File with the whole output of a command of a release: a check, the build, a migration."""
    return home() / "output" / release / f"{command}.log"
