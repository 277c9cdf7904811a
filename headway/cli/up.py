"""`headway up` and `headway serve`."""

from __future__ import annotations

import asyncio
import signal

from headway.cli.output import output
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.service.stack import running
from headway.system.paths import ledger_url

__all__ = ["serve", "up"]


def up(host: str, port: int, prefect_port: int) -> None:
    """Until Ctrl-C, SIGTERM, or one of the services ends (ServiceUnavailable)."""
    asyncio.run(_up(host, port, prefect_port))


async def _up(host: str, port: int, prefect_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = asyncio.create_task(_until_one_dies(host, port, prefect_port))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        output.say("stopping; releases that are going on bring back what they began to change")
        starting.cancel()
        await asyncio.wait({starting})
        return
    await starting


def serve(host: str, port: int) -> None:
    """The web app alone, beside a Prefect server and workers that are elsewhere. Raises ServiceUnavailable."""
    from headway.service.api import http_server  # a slow import that nothing else on the command line needs

    with Control() as control, Ledger.open(ledger_url()):  # what is not there is said here, not in a log
        output.say(f"Prefect UI   {control.ui_url}\nHeadway      http://{host}:{port}\nCtrl-C stops it")
    http_server.serve(host, port)


async def _until_one_dies(host: str, port: int, prefect_port: int) -> None:
    async with running(host=host, prefect_port=prefect_port, web_port=port, on_line=output.say) as up:
        output.say(f"Prefect UI   {up.ui_url}\nHeadway      {up.web_url}\nlogs         {up.logs}\nCtrl-C stops it all")
        await up.until_one_dies()
