"""TCP ports of this machine that Headway gives out: outside the ephemeral range, each to one app of one user.

The kernel gives a port of the ephemeral range to any program that asks for one, also while the instance or the proxy
that has it restarts. A port outside of it is taken only by a program that names it. Headway's own targets, of all users
of the machine, see each other's reservations; these outlast a reboot.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from blocks.targets._app_state import PublicPorts
from headway.domain.errors import TargetError
from headway.system.atomic_files import locked
from headway.system.ports_in_use import is_free

__all__ = ["hold", "release_unused", "reserve_instance", "reserve_public"]

RESERVATIONS = Path("/var/tmp/headway-ports")  # noqa: S108  # sticky: each user can remove only what is theirs
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
PUBLIC = range(8100, 20000)
INSTANCES = range(20000, 65536)
ALL = "0.0.0.0"  # noqa: S104  # where an instance may listen
NEW = 600.0  # seconds; a launch takes less
RANDOM = random.SystemRandom()


def reserve_public(owner: Path, host: str, taken: Collection[int | None]) -> int:
    """The first free public port that is not in `taken`, reserved for the app whose state is in `owner`.

    Raises TargetError when there is none.
    """
    return _reserve(owner, host, [port for port in _outside(PUBLIC) if port not in taken])


def reserve_instance(owner: Path) -> int:
    """A free port for an instance of the app, reserved for it. Random: one that was just given back is not the next."""
    candidates = _outside(INSTANCES)
    return _reserve(owner, ALL, RANDOM.sample(candidates, len(candidates)))


def hold(owner: Path, port: int) -> None:
    """Reserve a port that the app has, if no other app has reserved it."""
    with _reservations() as directory:
        reservation = directory / str(port)
        if not reservation.exists() or _owner(reservation) != owner:
            _take(reservation, owner)


def release_unused(owner: Path, used: Collection[int | None]) -> None:
    """Give back the app's reservations of all other ports."""
    with _reservations() as directory:
        for reservation in directory.iterdir():
            if reservation.name.isdecimal() and int(reservation.name) not in used and _owner(reservation) == owner:
                reservation.unlink()


def _reserve(owner: Path, host: str, candidates: Collection[int]) -> int:
    with _reservations() as directory:
        for port in candidates:
            if is_free(host, port) and _take(directory / str(port), owner):
                return port
    raise TargetError(
        f"{owner.name}: no port of this machine is left for it outside the ephemeral range",
        f"forget apps that are not used any more, or make the range in {EPHEMERAL} smaller",
    )


def _outside(ports: range) -> list[int]:
    """Those of these ports that are not ephemeral; all of them on a machine where that would leave none."""
    low, high = (int(bound) for bound in EPHEMERAL.read_text().split())
    return [port for port in ports if not low <= port <= high] or list(ports)


def _take(reservation: Path, owner: Path) -> bool:
    """Whether nobody had the port, and it is reserved for this owner now."""
    try:
        with reservation.open("x") as made:
            made.write(str(owner))
            return True
    except FileExistsError:
        pass
    other = _owner(reservation)
    if other is None or (other.exists() and (_is_new(reservation) or _may_hold(other, reservation))):
        return False
    reservation.write_text(str(owner))
    return True


def _owner(reservation: Path) -> Path | None:
    """Directory of the app that has the reservation; None when it is another user's."""
    try:
        return Path(reservation.read_text()) if reservation.stat().st_uid == os.getuid() else None
    except (FileNotFoundError, PermissionError):
        return None


def _is_new(reservation: Path) -> bool:
    """Whether its owner may not have written yet that it has the port."""
    return time.time() - reservation.stat().st_mtime < NEW


def _may_hold(owner: Path, reservation: Path) -> bool:
    """Whether the app there has the port."""
    return int(reservation.name) in PublicPorts.read(owner).ports()


@contextlib.contextmanager
def _reservations() -> Iterator[Path]:
    """The directory with a file for each reserved port, for one process of this user at a time."""
    if not RESERVATIONS.exists():
        with contextlib.suppress(FileExistsError):  # another process was faster
            RESERVATIONS.mkdir()
            RESERVATIONS.chmod(0o1777)
    with locked(RESERVATIONS / f"lock-{os.getuid()}"):
        yield RESERVATIONS
