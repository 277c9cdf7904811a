"""TCP ports of this machine: free ones, and the processes that use the others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from headway.domain.errors import ServiceUnavailable

__all__ = ["is_free", "owner", "require_free", "reserved"]

LOOPBACK = "127.0.0.1"


@contextmanager
def reserved() -> Iterator[int]:
    """A port of loopback for a server that sets SO_REUSEADDR, as nearly all do.

    The kernel gives it to no other program that asks for any port, and to no connection, until the block ends.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind((LOOPBACK, 0))
        yield int(reservation.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    return _bind_error(host, port) is None


def require_free(host: str, port: int, option: str) -> None:
    """Raise ServiceUnavailable when a server could not listen there. `option` of the command chooses another port."""
    if error := _bind_error(host, port):
        raise ServiceUnavailable(
            f"port {port} on {host} is taken by {owner(port)} ({error.strerror})",
            f"stop it, or choose another with {option}",
        ) from error


def owner(port: int) -> str:
    """Name and pid of the program that listens on a port."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
        if listens and connection.pid:
            with suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def _bind_error(host: str, port: int) -> OSError | None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            return error
    return None
