"""Child processes of `headway up`: start, wait until ready, stop."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from headway.domain.errors import ServiceUnavailable

__all__ = ["ChildProcess", "Waiting"]

IDLE = 60.0  # seconds without progress after which a start has failed
LONGEST = 900.0  # seconds after which a start has failed although there is progress
ANNOUNCE = 10.0  # seconds between two messages to a person who waits
STOP_DEADLINE = 45.0  # seconds; flow runs have 30 to roll back
POLL_INTERVAL = 0.1  # seconds
LOG_LIMIT = 10 * 2**20  # bytes; a larger log is renamed when its process starts again
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


@dataclass
class ChildProcess:
    """A command in a process group of its own that writes its output to a log file. It is killed when we die."""

    name: str
    command: list[str]
    log: Path
    environment: Mapping[str, str]
    cwd: str | None = None
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._rotate_log()
        parent = os.getpid()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                cwd=self.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),  # it only makes two system calls
            )

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))

    async def wait(self) -> int:
        """Returns the exit code, or minus the signal."""
        assert self.process is not None
        return await self.process.wait()

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None

    async def stop(self, deadline: float = STOP_DEADLINE) -> None:
        """Send SIGTERM, and after the deadline SIGKILL to the process group. Does nothing if it has ended."""
        if self.process is None:
            return
        if not self.ended:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), deadline)
            except TimeoutError:
                self._kill_group()
        self._kill_group()
        await self.process.wait()

    def _kill_group(self) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def last_lines(self, count: int = 5) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def progress(self) -> tuple[int, float]:
        """Changes while it does something: bytes of its log, and seconds of processor time of all its processes."""
        size = self.log.stat().st_size if self.log.exists() else 0
        seconds = 0.0
        try:
            assert self.process is not None
            process = psutil.Process(self.process.pid)
            for one in (process, *process.children(recursive=True)):
                seconds += sum(one.cpu_times()[:2])
        except psutil.NoSuchProcess:  # one ended just now, which is progress
            seconds = -1.0
        return size, seconds


def _die_with(parent: int) -> None:
    """In the child: have the kernel send SIGKILL when the parent dies, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Waiting:
    """Waits for a process, as long as it makes progress, and says so to a person. Raises ServiceUnavailable."""

    process: ChildProcess
    on_line: Callable[[str], None]

    async def until_end(self) -> bool:
        """Wait for a command that ends by itself. Returns whether it succeeded."""

        async def ended() -> bool:
            return self.process.ended

        try:
            await self.until(ended, "its end")
        finally:
            await self.process.stop(deadline=0.0)
        return await self.process.wait() == 0

    async def until_healthy(self, url: str, socket: Path | None = None) -> None:
        """Wait until a GET of the URL has status 200; of a server that listens on a Unix socket, with `socket`."""
        transport = httpx.AsyncHTTPTransport(uds=str(socket)) if socket else None
        async with httpx.AsyncClient(trust_env=False, timeout=2.0, transport=transport) as client:

            async def healthy() -> bool:
                try:
                    return (await client.get(url)).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            await self.until(healthy, url)

    async def until_listening(self, host: str, port: int) -> None:
        """Wait until a connection to the port is accepted."""

        async def listening() -> bool:
            try:
                _, connection = await asyncio.open_connection(host, port)
            except OSError:
                return False
            connection.close()
            return True

        await self.until(listening, f"port {port}")

    async def until_exists(self, path: Path) -> None:
        async def exists() -> bool:
            return await asyncio.to_thread(path.exists)

        await self.until(exists, str(path))

    async def until(self, ready: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until `ready`: for at most `IDLE` seconds without progress, and `LONGEST` in all."""
        process, clock = self.process, asyncio.get_running_loop().time
        begun = moved = announced = clock()
        before = process.progress()
        while not await ready():
            if process.ended:
                lines = process.last_lines()
                raise ServiceUnavailable(f"{process.name} ended while starting:\n{lines}", f"its log: {process.log}")
            now, progress = clock(), process.progress()
            if progress != before:
                before, moved = progress, now
            if now - moved > IDLE or now - begun > LONGEST:
                raise ServiceUnavailable(
                    f"{process.name} is not ready after {now - begun:.0f} s, {now - moved:.0f} s of them idle: "
                    f"waited for {what}\n{process.last_lines()}",
                    f"its log: {process.log}",
                )
            if now - announced > ANNOUNCE:
                announced = now
                self.on_line(f"  {process.name}: starting for {now - begun:.0f} s; its log: {process.log}")
            await asyncio.sleep(POLL_INTERVAL)
