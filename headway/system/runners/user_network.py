"""Network of a sandbox: other hosts through slirp4netns, not this machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from headway.domain.errors import CommandFailed
from headway.system.runners import services
from headway.system.runners.allowed_hosts import LINK_LOCAL, own_addresses

__all__ = ["NAME_SERVER", "Network", "connected", "readable"]

READY = 20.0  # seconds
NS_GET_USERNS = 0xB701  # linux/nsfs.h
GATEWAY, NAME_SERVER = "10.0.2.2", "10.0.2.3"  # of slirp4netns; it forwards to the name servers of this machine


class Network(NamedTuple):
    """What a workload reaches."""

    ports: tuple[int, ...] = ()
    """Of this machine's loopback address."""
    addresses: tuple[str, ...] | None = None
    """The only ones elsewhere; None: all."""


@contextlib.asynccontextmanager
async def connected(pid: int, name: str, network: Network) -> AsyncIterator[None]:
    """Connect the network namespace of a process. Raises CommandFailed for the workload `name`."""
    await _mapped(pid)
    closed = [f"route add blackhole {where}" for where in sorted({LINK_LOCAL, *own_addresses()})]
    with _owner(pid) as user_namespace:
        await _configure(pid, user_namespace, name, closed)
        async with _slirp4netns(pid, user_namespace, name):
            if network.addresses is not None:
                only = [f"route add {address} via {GATEWAY}" for address in sorted(set(network.addresses))]
                await _configure(
                    pid, user_namespace, name, [*only, "route del default", f"route add blackhole {NAME_SERVER}"]
                )
            async with services.opened(pid, user_namespace, network.ports, name):
                yield


async def _mapped(pid: int) -> None:
    """Wait until the user namespace has its users: who enters it before has no rights there. Raises TimeoutError."""
    async with asyncio.timeout(READY):
        while not Path(f"/proc/{pid}/uid_map").read_bytes():  # noqa: ASYNC110, ASYNC240 - nothing to wait on
            await asyncio.sleep(0.002)


@contextlib.contextmanager
def _owner(pid: int) -> Iterator[str]:
    """Path of the user namespace that owns the process's network. The process itself is in a child of it (bwrap)."""
    with open(f"/proc/{pid}/ns/net", "rb") as network:  # noqa: PTH123 - not a file to read
        owner = fcntl.ioctl(network, NS_GET_USERNS)
    try:
        yield f"/proc/{os.getpid()}/fd/{owner}"
    finally:
        os.close(owner)


@contextlib.asynccontextmanager
async def _slirp4netns(pid: int, user_namespace: str, name: str) -> AsyncIterator[None]:
    ready_read, ready_write = os.pipe()
    exit_read, exit_write = os.pipe()  # slirp4netns ends when `exit_write` is closed, also by our own end
    messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            *("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"),
            *("--ready-fd", str(ready_write), "--exit-fd", str(exit_read)),
            *(f"--userns-path={user_namespace}", str(pid), "tap0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=messages,
            pass_fds=(ready_write, exit_read),
            start_new_session=True,  # a Ctrl-C is for us: the workload may need its network to end
        )
        os.close(ready_write)
        ready_write = -1
        await readable(ready_read)
        if not os.read(ready_read, 1):
            raise CommandFailed(
                f"{name}: slirp4netns cannot connect the sandbox: {_last_line(messages)}",
                "it needs /dev/net/tun",
            )
        yield
    finally:
        for descriptor in (ready_read, ready_write, exit_read, exit_write):
            if descriptor >= 0:
                os.close(descriptor)
        if process and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
        messages.close()


def _last_line(messages: IO[bytes]) -> str:
    messages.seek(0)
    return next(reversed(messages.read().decode(errors="replace").splitlines()), "it printed nothing")[:200]


async def _configure(pid: int, user_namespace: str, name: str, commands: Sequence[str]) -> None:
    """Run commands of `ip` in the network namespace. The workload itself cannot change routes."""
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--user={user_namespace}", f"--net=/proc/{pid}/ns/net", "--preserve-credentials"),
        *("ip", "-batch", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate("".join(f"{command}\n" for command in commands).encode())
    if process.returncode:
        raise CommandFailed(
            f"{name}: the routes of the sandbox cannot be set: {errors.decode(errors='replace').strip()[:200]}",
            "install iproute2 and util-linux",
        )


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read, or its other end is closed. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(READY):
            await ready.wait()
    finally:
        loop.remove_reader(descriptor)
