"""`headway up` and `headway serve`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.open import sign_in_link
from headway.cli.output import output
from headway.ledger import Ledger
from headway.service import systemd_unit
from headway.service.door.process import tls_files
from headway.service.identity_provider import IdentityProvider
from headway.service.prefect.client import Control
from headway.service.stack import Addresses, Stack, running, serving
from headway.system.paths import home, ledger_url
from headway.system.runners import isolation, runner

__all__ = ["serve", "up"]

Host = Annotated[str, typer.Option(help="Address to listen on; one that other machines reach needs TLS")]
Port = Annotated[int, typer.Option(help="Port of Headway's pages, API and webhooks, and of Prefect's UI and API")]
Certificate = Annotated[Path | None, typer.Option(help="Certificate with its chain, PEM; read again when it changes")]
Key = Annotated[Path | None, typer.Option(help="Key of the certificate, PEM")]


@examples(
    "headway up",
    "headway up --port 8000",
    "headway up --host 0.0.0.0 --port 443 --tls-certificate fullchain.pem --tls-key privkey.pem",
)
def up(
    host: Host = "127.0.0.1",
    port: Port = 4300,
    prefect_port: Annotated[
        int, typer.Option(help="Port of the Prefect server, on the loopback interface, for Headway's own services")
    ] = 4200,
    tls_certificate: Certificate = None,
    tls_key: Key = None,
    install: Annotated[
        bool, typer.Option("--install", help="Write a systemd unit that does so from now on, and exit")
    ] = False,
) -> None:
    """Run Prefect, a worker and Headway on this machine, until Ctrl-C."""
    tls = tls_files(host, tls_certificate, tls_key)
    IdentityProvider.of_environment()  # an error in the settings is an error here, not in a log
    if install:
        arguments = ["--host", host, "--port", str(port), "--prefect-port", str(prefect_port)]
        if tls:
            arguments += ["--tls-certificate", str(tls.certificate), "--tls-key", str(tls.key)]
        written = systemd_unit.install(arguments)
        output.say("\n".join([f"{written} is written; start it, now and at each boot:", *systemd_unit.commands()]))
        return
    asyncio.run(_until_stopped(_run(Addresses(host, port, prefect_port, tls))))


@examples(
    "PREFECT_API_URL=https://prefect.example.com/api headway serve",
)
def serve(
    host: Host = "127.0.0.1", port: Port = 4300, tls_certificate: Certificate = None, tls_key: Key = None
) -> None:
    """Run only Headway's pages, API and webhooks.

    Use it with a Prefect server (PREFECT_API_URL) and workers that run elsewhere.
    """
    tls = tls_files(host, tls_certificate, tls_key)
    IdentityProvider.of_environment()  # an error in the settings is an error here, not in a log
    with Control() as control, Ledger.open(ledger_url()):  # a missing server is an error here, not in a log
        output.say(f"Prefect UI   {control.ui_url}")
        asyncio.run(_until_stopped(_serve(Addresses(host, port, 0, tls), control.url)))


async def _until_stopped(running: Coroutine[None, None, None]) -> None:
    """Run until Ctrl-C, SIGTERM or SIGHUP.

    Raises ServiceUnavailable when a service does not start, or ends too often.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    starting = asyncio.create_task(running)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        output.say("stopping; releases in progress are rolled back")
        starting.cancel()
        await asyncio.wait({starting})
        return
    await starting


async def _run(addresses: Addresses) -> None:
    first = not (home() / "prefect" / "prefect.db").exists()
    commands = isolation(runner(trusted=True))  # a mistake in HEADWAY_RUNNER is an error here, not in each release
    output.say(f"starting; logs are in {home() / 'logs'}", f"commands of apps are {commands}")
    if first and "PREFECT_API_URL" not in os.environ:
        output.say("the first start creates a database and takes about a minute, later ones about 20 s")
    async with running(addresses, output.say) as up:
        _say_where(up)
        await up.keep_running(output.say)


async def _serve(addresses: Addresses, api_url: str) -> None:
    async with serving(addresses, api_url, output.say) as service:
        _say_where(service)
        await service.keep_running(output.say)


def _say_where(stack: Stack) -> None:
    output.say(
        f"Headway      {stack.web_url}",
        f"Prefect UI   {stack.ui_url}",
        f"logs         {stack.logs}",
        f"sign in      {sign_in_link(stack.web_url)} (once, for ten minutes; a new one: headway open)",
        "Ctrl-C stops it all",
    )
