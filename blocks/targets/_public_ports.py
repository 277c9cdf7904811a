"""Public ports of apps on this machine, each reserved for one target."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from blocks.targets._app_state import PublicPorts
from headway.system.atomic_files import locked
from headway.system.ports_in_use import is_free

__all__ = ["release", "reserve"]

FIRST_PORT = 8100  # of the ports for apps without one in headway.yaml


def reserve(owner: Path, host: str, taken: Collection[int | None]) -> int:
    """Reserve a free port that is not in `taken` for the app with its state in the directory `owner`."""
    return next(port for port in range(FIRST_PORT, 65536) if port not in taken and _reserved(port, owner, host))


def release(owner: Path, ports: Collection[int | None]) -> None:
    """Release the ports among these that are reserved for this app."""
    with _reservations() as directory:
        for reservation in (directory / str(port) for port in ports if port):
            if reservation.exists() and reservation.read_text() == str(owner):
                reservation.unlink()


def _reserved(port: int, owner: Path, host: str) -> bool:
    """Reserve the port for this owner if it is free; return whether it was."""
    with _reservations() as directory:
        reservation = directory / str(port)
        if reservation.exists():
            other = Path(reservation.read_text())
            if other != owner and other.exists() and _may_hold(other, port):
                return False
        if not is_free(host, port):
            return False
        reservation.write_text(str(owner))
        return True


def _may_hold(owner: Path, port: int) -> bool:
    """Whether the app there uses the port, or has not stored its ports yet."""
    ports = PublicPorts.read(owner)
    return bool({port, None} & {ports.port, ports.preview_port})


@contextlib.contextmanager
def _reservations() -> Iterator[Path]:
    """Lock the directory with a file for each reserved port."""
    directory = Path(f"/tmp/headway-{os.getuid()}-ports")  # noqa: S108  # mode 0700
    directory.mkdir(mode=0o700, exist_ok=True)
    with locked(directory / "lock"):
        yield directory
