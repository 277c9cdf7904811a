"""`headway up` and `headway serve`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.output import output
from headway.ledger import Ledger
from headway.service import systemd_unit
from headway.service.prefect.client import Control
from headway.service.stack import running
from headway.system.paths import home, ledger_url

__all__ = ["serve", "up"]

Host = Annotated[str, typer.Option(help="Address to listen on")]
Port = Annotated[int, typer.Option(help="Port of Headway's web page, API and webhooks")]


@examples(
    "headway up",
    "headway up --port 8000 --host 0.0.0.0",
)
def up(
    host: Host = "127.0.0.1",
    port: Port = 4300,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server")] = 4200,
    install: Annotated[
        bool, typer.Option("--install", help="Write a systemd unit that does so from now on, and exit")
    ] = False,
) -> None:
    """Run Prefect, a worker and Headway on this machine, until Ctrl-C."""
    if install:
        arguments = ["--host", host, "--port", str(port), "--prefect-port", str(prefect_port)]
        written = systemd_unit.install(arguments)
        output.say("\n".join([f"{written} is written; start it, now and at each boot:", *systemd_unit.commands()]))
        return
    asyncio.run(_up(host, port, prefect_port))


@examples(
    "PREFECT_API_URL=https://prefect.example.com/api headway serve",
)
def serve(host: Host = "127.0.0.1", port: Port = 4300) -> None:
    """Run only Headway's web page, API and webhooks.

    Use it with a Prefect server (PREFECT_API_URL) and workers that run elsewhere.
    """
    from headway.service.api import http_server  # imports FastAPI, which `headway up` need not wait for

    with Control() as control, Ledger.open(ledger_url()):  # a missing server is an error here, not in a log
        output.say(f"Prefect UI   {control.ui_url}\nHeadway      http://{host}:{port}\nCtrl-C stops it")
    http_server.serve(host, port)


async def _up(host: str, port: int, prefect_port: int) -> None:
    """Run until Ctrl-C, SIGTERM or SIGHUP.

    Raises ServiceUnavailable when a service does not start, or ends too often.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = asyncio.create_task(_run(host, port, prefect_port))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        output.say("stopping; releases in progress are rolled back")
        starting.cancel()
        await asyncio.wait({starting})
        return
    await starting


async def _run(host: str, port: int, prefect_port: int) -> None:
    first = not (home() / "prefect" / "prefect.db").exists()
    output.say(f"starting; logs are in {home() / 'logs'}")
    if first and "PREFECT_API_URL" not in os.environ:
        output.say("the first start creates a database and takes about a minute, later ones about 20 s")
    async with running(host=host, prefect_port=prefect_port, web_port=port, on_line=output.say) as up:
        output.say(f"Prefect UI   {up.ui_url}\nHeadway      {up.web_url}\nlogs         {up.logs}\nCtrl-C stops it all")
        await up.keep_running(output.say)
