"""Answer the proxy's health checks of one instance, for the launcher that runs it. Standard library only.

The proxy could ask the instance itself. But when the instance is dead and another program has taken its port, that one
would answer, and get the requests. So the launcher asks the instance, after it has found that the socket which listens
on the port belongs to a process below it, and answers with a token that only the proxy and the launcher know.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["HealthResponder"]

LOOPBACK = "127.0.0.1"
REQUEST_TIMEOUT = 2.0  # seconds for a request of the proxy to arrive
REQUEST_BYTES = 65_536
EXCERPT = 200  # characters of a body
LISTEN = "0A"  # state of a socket in /proc/net/tcp
# Local addresses in /proc/net/tcp and tcp6 that get the connections to 127.0.0.1, for both byte orders.
COVERING = {
    *("00000000", "0100007F", "7F000001", "0" * 32),
    *("0000000000000000FFFF00000100007F", "00000000000000000000FFFF7F000001"),
}


class HealthResponder:
    """Listens on `port` of `settings`, and answers every request with the result of a health check.

    `settings`: port; instance_port, path, host and timeout of the check; token. `descendants` returns the processes
    below this one; `on_healthy` is called when the first check has passed. Raises OSError when the port is taken.
    """

    def __init__(
        self, settings: Mapping[str, Any], descendants: Callable[[], set[int]], on_healthy: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._descendants = descendants
        self._on_healthy = on_healthy
        self._was_healthy = False
        self._proof: tuple[str, str] | None = None  # file descriptor in /proc of the listening socket; where it leads
        self._server = socket.create_server((LOOPBACK, settings["port"]), backlog=16)

    def start(self) -> None:
        """Serve in a thread until the process ends."""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection:
                try:
                    connection.settimeout(REQUEST_TIMEOUT)
                    _read_head(connection)
                    self._respond(connection)
                except OSError:
                    continue  # the proxy has gone, or sends nothing: it will ask again

    def _respond(self, connection: socket.socket) -> None:
        reason = self._check()
        if not reason and not self._was_healthy:
            self._was_healthy = True
            self._on_healthy()
        status, body = ("503 Service Unavailable", reason) if reason else ("200 OK", self._settings["token"])
        content = body.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + content)

    def _check(self) -> str:
        """Why the instance is unhealthy; empty when it is healthy."""
        port, timeout = self._settings["instance_port"], self._settings["timeout"]
        try:
            with socket.create_connection((LOOPBACK, port), timeout) as connection:
                if not self._owns_listener():
                    return f"port {port} is served by a program that this instance has not started"
                return self._ask(connection)
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except OSError as error:
            return str(error)

    def _ask(self, connection: socket.socket) -> str:
        path, host = self._settings["path"], self._settings["host"]
        headers = f"Host: {host}\r\nUser-Agent: headway-health\r\nAccept: */*\r\nConnection: close\r\n"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        head, body = _read_head(connection)
        status = b"".join(head.split(None, 2)[1:2]).decode(errors="replace")
        if status == "200":
            return ""
        body = body or connection.recv(4096)
        said = " ".join(body.decode(errors="replace").split())[:EXCERPT]
        return f"{path} answers {status or 'nothing'} to Host: {host}: {said}"

    def _owns_listener(self) -> bool:
        """Whether a process below this one has the socket that listens on the instance's port.

        While that socket is open nobody else can listen there, so a look at it is enough.
        """
        if self._proof and _link(self._proof[0]) == self._proof[1]:
            return True
        listening = dict(_listeners(self._settings["instance_port"]))
        for pid in self._descendants():
            try:
                descriptors = [str(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
            except PermissionError:  # it has changed its user, or has capabilities: then the socket's user decides
                if _user(pid) in listening.values():
                    return True
                continue
            except OSError:
                continue  # it has just ended
            for descriptor in descriptors:
                if (link := _link(descriptor)) in listening:
                    self._proof = descriptor, link
                    return True
        return False


def _listeners(port: int) -> Iterator[tuple[str, int]]:
    """Sockets that get connections to this port of 127.0.0.1: `socket:[INODE]`, and their user."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except FileNotFoundError:  # no IPv6
            continue
        for line in lines:
            _, local, _, state, _, _, _, user, _, inode, *_ = line.split()
            address, _, number = local.partition(":")
            if state == LISTEN and int(number, 16) == port and address in COVERING:
                yield f"socket:[{inode}]", int(user)


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head of a request or response, and as much of the body as has come with it."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < REQUEST_BYTES:
        chunk = connection.recv(4096)
        if not chunk:
            break
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _user(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
