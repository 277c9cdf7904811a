"""Credential of the Prefect server that `headway up` starts: only our services and commands have it.

It is a login `headway:SECRET` of HTTP Basic authentication, which is what Prefect's server and clients support.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from headway.domain.errors import HeadwayError
from headway.system.paths import home

__all__ = ["authorization", "make_login", "server_login"]

NAMES = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")


def server_login() -> str | None:
    """The login of the server of this HEADWAY_HOME: from the environment, else from its file. None without both."""
    named = next((os.environ[name] for name in NAMES if os.environ.get(name)), None)
    return named or _read(_file())


def make_login() -> str:
    """`server_login()`, made at the first call. Raises HeadwayError when other users can read its file."""
    if known := server_login():
        return known
    file = _file()
    made = f"headway:{secrets.token_urlsafe(32)}"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # an empty file, from a disk that was full
        file.unlink()
        return make_login()
    with os.fdopen(descriptor, "w") as written:
        written.write(made)
    return made


def authorization(login: str) -> str:
    """Value of the header `Authorization`."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def _file() -> Path:
    return home() / "prefect-credential"


def _read(file: Path) -> str | None:
    try:
        if file.stat().st_mode & 0o077:
            raise HeadwayError(
                f"{file}: other users can read it", f"remove it and run `headway down` and `headway up`: rm {file}"
            )
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None
