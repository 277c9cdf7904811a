"""Child processes of `headway up`: start, wait until ready, stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from headway.domain.errors import ServiceUnavailable

__all__ = ["ChildProcess", "run_to_end", "wait_until", "wait_until_exists", "wait_until_healthy"]

START_DEADLINE = 120.0  # seconds; Prefect takes 30 to create a new database on a slow disk
STOP_DEADLINE = 45.0  # seconds; flow runs have 30 to roll back
POLL_INTERVAL = 0.1  # seconds
LOG_LIMIT = 10 * 2**20  # bytes; a larger log is renamed when its process starts again


@dataclass
class ChildProcess:
    """A command in its own process group that writes its output to a log file."""

    name: str
    command: list[str]
    log: Path
    environment: Mapping[str, str]
    cwd: str | None = None
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._rotate_log()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                cwd=self.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))

    async def wait(self) -> None:
        assert self.process is not None
        await self.process.wait()

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


async def run_to_end(process: ChildProcess) -> bool:
    """Run a command to its end; kill it at the deadline. Returns whether it succeeded."""
    await process.start()
    try:
        await asyncio.wait_for(process.wait(), START_DEADLINE)
    finally:
        await process.stop(deadline=0.0)
    assert process.process is not None
    return process.process.returncode == 0


async def wait_until_healthy(url: str, process: ChildProcess | None) -> None:
    """Wait until a GET of the URL has status 200. Raises ServiceUnavailable."""
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:

        async def healthy() -> bool:
            try:
                return (await client.get(url)).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        await wait_until(healthy, process, url)


async def wait_until_exists(path: Path, process: ChildProcess) -> None:
    """Raises ServiceUnavailable."""

    async def exists() -> bool:
        return await asyncio.to_thread(path.exists)

    await wait_until(exists, process, str(path))


async def wait_until(ready: Callable[[], Awaitable[bool]], process: ChildProcess | None, what: str) -> None:
    """Raises ServiceUnavailable when the process ends or the deadline has passed."""
    name = process.name if process else what
    deadline = asyncio.get_running_loop().time() + START_DEADLINE
    while not await ready():
        if process and process.ended:
            raise ServiceUnavailable(f"{name} ended while starting:\n{process.last_lines()}", f"its log: {process.log}")
        if asyncio.get_running_loop().time() > deadline:
            raise ServiceUnavailable(f"{name} is not healthy after {START_DEADLINE:g} s", f"waited for {what}")
        await asyncio.sleep(POLL_INTERVAL)
