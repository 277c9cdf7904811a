"""Services of this machine that the operator has opened to workloads in a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headway.domain.errors import CommandFailed, UsageError
from headway.system.runners import loopback_listeners

__all__ = ["Services", "opened", "opened_services"]

VARIABLE = "HEADWAY_SANDBOX_SERVICES"
LOOPBACK = "127.0.0.1"
PORT = re.compile(r"(?:(?:127\.0\.0\.1|localhost):)?(\d{1,5})")
CHUNK = 64 * 1024  # bytes
START = 20.0  # seconds


class Services(NamedTuple):
    """Ports at the loopback address, and Unix sockets."""

    ports: tuple[int, ...] = ()
    sockets: tuple[Path, ...] = ()


def opened_services() -> Services:
    """What HEADWAY_SANDBOX_SERVICES names, such as `5432,127.0.0.1:6379,/var/run/docker.sock`. Raises UsageError."""
    ports, sockets = [], []
    for entry in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        if entry.startswith("/"):
            if not Path(entry).is_socket():
                raise UsageError(f"{VARIABLE}: {entry} is not a socket", "start its service, or remove it")
            sockets.append(Path(entry))
        elif (found := PORT.fullmatch(entry)) and 0 < int(found[1]) < 65536:
            ports.append(int(found[1]))
        else:
            raise UsageError(
                f"{VARIABLE}: {entry!r} is not a port of {LOOPBACK} nor the path of a socket",
                "name them as in 5432,127.0.0.1:6379,/var/run/docker.sock",
            )
    return Services(tuple(dict.fromkeys(ports)), tuple(dict.fromkeys(sockets)))


@contextlib.asynccontextmanager
async def opened(pid: int, user_namespace: str, ports: Sequence[int], name: str) -> AsyncIterator[None]:
    """Forward loopback ports of a process's network namespace to the same ports of this machine.

    The listening sockets belong to that namespace; connections to them are accepted, and forwarded, by this process.
    Raises CommandFailed for the workload `name`.
    """
    listeners = await _listeners(pid, user_namespace, ports, name) if ports else []
    forwards = [_Forward(port) for port in ports]
    servers = [
        await asyncio.start_server(forward, sock=listener)
        for forward, listener in zip(forwards, listeners, strict=True)
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        await asyncio.gather(*(forward.close() for forward in forwards))


class _Forward:
    """Handler of connections: copies both directions, to and from a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all connections: a service may keep one open after the workload is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                other_reader, other_writer = await asyncio.open_connection(LOOPBACK, self._port)
            except OSError:  # the service is down: the workload sees a connection that ends at once
                return
            with contextlib.closing(other_writer):
                await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):  # either side may go at any time
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _listeners(pid: int, user_namespace: str, ports: Sequence[int], name: str) -> list[socket.socket]:
    """Listening sockets of the network namespace. A process that has entered it makes them and sends them here."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--user={user_namespace}", f"--net=/proc/{pid}/ns/net", "--preserve-credentials"),
            *(sys.executable, "-I", "-S", loopback_listeners.__file__, *map(str, ports)),
            stdin=theirs.fileno(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(START):
            _, errors = await process.communicate()
        if process.returncode:
            raise CommandFailed(
                f"{name}: the sandbox cannot listen for {VARIABLE}: {errors.decode(errors='replace').strip()[-200:]}",
                "name ports that can be used twice on this machine",
            )
        _, descriptors, _, _ = socket.recv_fds(ours, 1, len(ports))
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]
