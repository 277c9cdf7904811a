"""The process that runs the controllers, seen from the API process that starts it."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from headway.domain.errors import ServiceUnavailable
from headway.service.controllers.base import OK, Controller, Report

__all__ = ["ControllerProcess"]

WAKE_INTERVAL = 0.1  # seconds between two bytes to the process: deliveries in between share one
STOP_DEADLINE = 10.0  # seconds for the process to end; what is cut off is repeated by the next process


class ControllerProcess(Controller):
    """Keeps the process running and forwards its checks. A process that ended is replaced after `interval`."""

    name = "controllers"
    interval = 1.0

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self.deliveries_stored = asyncio.Event()
        """Set it to have the dispatcher look for new deliveries."""

    async def reconcile(self) -> list[str]:
        """Run the process until it ends, then raise ServiceUnavailable. Cancel this to stop the process."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headway.service.controllers.runner", stdin=pipe, stdout=pipe
        )
        assert process.stdin is not None
        assert process.stdout is not None
        waking = asyncio.create_task(self._wake_dispatcher(process.stdin))
        try:
            self._report(self.name, OK)
            async for line in process.stdout:
                for name, state in json.loads(line).items():
                    self._report(name, state)
        finally:
            waking.cancel()
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), STOP_DEADLINE)
            except TimeoutError:
                process.kill()
                await process.wait()
        raise ServiceUnavailable(f"the controllers have ended (exit {process.returncode})", "see the log above")

    async def _wake_dispatcher(self, stdin: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # `reconcile` notices that the process has ended
            while True:
                await self.deliveries_stored.wait()
                self.deliveries_stored.clear()
                stdin.write(b".")
                await stdin.drain()
                await asyncio.sleep(WAKE_INTERVAL)
