"""Who listens on this machine."""

from __future__ import annotations

from contextlib import suppress

import psutil

__all__ = ["owner"]


def owner(port: int) -> str:
    """The program that has a TCP port, in words."""
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
        if listens and connection.pid:
            with suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"
