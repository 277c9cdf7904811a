"""What goes on for ever beside the receiver: the sweep, the dispatcher, reports to git hosts.

A process of its own, so that no delivery waits for any of it. The receiver starts it (`Rounds`) and says with a byte on
its standard input that there may be something to dispatch. It answers with a line of JSON for each round that does
other than before: {"sweep": "ok"}. When its input ends, the receiver has gone, and so does it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

from headway.domain.errors import HeadwayError, ServiceUnavailable
from headway.ledger import Ledger
from headway.service.controllers.branch_poller import Poller
from headway.service.controllers.dispatcher import Dispatcher
from headway.service.controllers.preview_reconciler import Reconciler
from headway.service.controllers.recovery import revive, sweep
from headway.service.controllers.status_reporter import Reporter
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system.paths import home, ledger_url

__all__ = ["Rounds", "for_ever"]

SWEEP = 2.0  # seconds between two sweeps
REVIVE = 10.0  # seconds between two looks whether what should run does
POLL = 300.0  # seconds between two looks whether a webhook was lost
PREVIEWS = 5.0  # seconds between two looks whether previews are as they should be
REPORT = 1.0  # seconds between two looks for what git hosts should be told
DISPATCH = 1.0  # seconds between two looks for deliveries that are to be tried again; new ones are told
TELL = 0.1  # seconds between two words to the dispatcher: what comes meanwhile is in the next
STOP = 10.0  # seconds for what it is at when it is stopped; what is broken off is begun again by the next

log = logging.getLogger("uvicorn.error")


async def for_ever(
    checked: Callable[[str, str], None],
    name: str,
    round_: Callable[[], Awaitable[list[str]]],
    pause: float,
    wake: asyncio.Event | None = None,
) -> None:
    """Round after round; what goes wrong is in the log and told to `checked`, and the next round tries again.

    A round begins `pause` seconds after the last, or when it is woken.
    """
    said: list[str] = []
    wake = wake or asyncio.Event()
    while True:
        try:
            lines = await round_()
            for line in lines:
                if line not in said:  # what goes on for many rounds is said once
                    log.info("%s", line)
            said = lines
            checked(name, "ok")
        except HeadwayError as error:
            log.warning("%s: %s", name, error)
            checked(name, error.what)
        except Exception as error:
            log.exception("%s", name)
            checked(name, f"a bug in Headway: {type(error).__name__}: {error}")
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), pause)


class Rounds:
    """The process, for as long as `keep_going` does."""

    def __init__(self, checked: Callable[[str, str], None]) -> None:
        self._checked = checked
        self.wake = asyncio.Event()
        """Set when there may be something to dispatch."""

    async def keep_going(self) -> list[str]:
        """Never returns. Raises ServiceUnavailable when the process ends; it ends with us when this is cancelled."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headway.service.controllers.runner", stdin=pipe, stdout=pipe
        )
        assert process.stdin is not None
        assert process.stdout is not None
        telling = asyncio.create_task(self._tell(process.stdin))
        try:
            self._checked("rounds", "ok")
            async for line in process.stdout:
                for name, state in json.loads(line).items():
                    self._checked(name, state)
        finally:
            telling.cancel()
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), STOP)
            except TimeoutError:
                process.kill()
                await process.wait()
        raise ServiceUnavailable(
            f"what goes on beside the receiver has ended (exit {process.returncode})", "its last words are in the log"
        )

    async def _tell(self, dispatcher: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # whoever reads what it says finds out that it has ended
            while True:
                await self.wake.wait()
                self.wake.clear()
                dispatcher.write(b".")
                await dispatcher.drain()
                await asyncio.sleep(TELL)


def _print_news() -> Callable[[str, str], None]:
    known: dict[str, str] = {}

    def checked(name: str, state: str) -> None:
        if known.get(name) != state:
            known[name] = state
            print(json.dumps({name: state}), flush=True)

    return checked


async def _all() -> None:
    """Until standard input ends."""
    checked = _print_news()
    load_target, load_git_host = connections().load_target, connections().load_git_host
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        dispatcher = Dispatcher(ledger, control, home() / "workspaces", load_git_host)
        reconciler = Reconciler(ledger, control, load_git_host, dispatcher.wake)
        poller = Poller(ledger, home() / "workspaces", dispatcher.wake)

        async def sweep_once() -> list[str]:
            return await asyncio.to_thread(sweep, ledger, control)

        async def revive_once() -> list[str]:
            return await revive(ledger, load_target)

        rounds = [
            for_ever(checked, "sweep", sweep_once, SWEEP),
            for_ever(checked, "revive", revive_once, REVIVE),
            for_ever(checked, "reports", Reporter(ledger, control, load_git_host, load_target).round, REPORT),
            for_ever(checked, "poll", poller.round, POLL),
            for_ever(checked, "previews", reconciler.round, PREVIEWS),
            for_ever(checked, "dispatch", dispatcher.round, DISPATCH, dispatcher.wake),
        ]
        going = [asyncio.create_task(each) for each in rounds]
        told = await _standard_input()
        while await told.read(4096):
            dispatcher.wake.set()
        for task in going:
            task.cancel()
        await asyncio.wait(going)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the receiver, and its end is ours
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # every question to the API
    asyncio.run(_all())
