"""A systemd unit that runs `headway up`: a system unit for root, otherwise a user unit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from headway.domain.errors import UsageError
from headway.system import paths

__all__ = ["NAME", "commands", "install", "unit"]

NAME = "headway.service"
STOP = 120  # seconds: releases in progress are rolled back first


def install(arguments: Sequence[str]) -> Path:
    """Write the unit, and return its path. `arguments` are those of `headway up`.

    Raises UsageError when the directory cannot be written.
    """
    directory = Path("/etc/systemd/system") if _is_root() else _user_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        paths.home().mkdir(parents=True, exist_ok=True, mode=0o700)
        (directory / NAME).write_text(unit(arguments, paths.home(), system=_is_root()))
    except OSError as error:
        raise UsageError(
            f"{directory / NAME}: cannot be written: {error.strerror}", "is this a systemd machine?"
        ) from error
    return directory / NAME


def commands() -> list[str]:
    """Commands that start the unit now and at each boot."""
    if _is_root():
        return ["systemctl daemon-reload", f"systemctl enable --now {NAME}"]
    return ["systemctl --user daemon-reload", f"systemctl --user enable --now {NAME}", "loginctl enable-linger"]


def unit(arguments: Sequence[str], home: Path, *, system: bool) -> str:
    """Text of the unit. Apps are processes of it, but outlive it: only `headway up` itself is stopped with it.

    Other variables, such as HEADWAY_LEDGER_URL, are read from the file `environment` in `home`, if it is there.
    """
    command = " ".join(_quoted(word) for word in (str(Path(sys.executable).with_name("headway")), "up", *arguments))
    return f"""[Unit]
Description=Headway: releases of apps, and the apps on this machine
After=network-online.target docker.service
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={_escaped(str(home))}
Environment={_quoted(f"HEADWAY_HOME={home}")}
Environment={_quoted(f"PATH={os.environ.get('PATH', os.defpath)}")}
EnvironmentFile=-{_escaped(str(home))}/environment
KillMode=process
TimeoutStopSec={STOP}
Restart=always
RestartSec=5
LimitNOFILE=524288

[Install]
WantedBy={"multi-user.target" if system else "default.target"}
"""


def _quoted(word: str) -> str:
    return '"' + _escaped(word).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    """With the percent signs and dollars that systemd would replace."""
    return text.replace("%", "%%").replace("$", "$$")


def _is_root() -> bool:
    return os.getuid() == 0


def _user_directory() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
