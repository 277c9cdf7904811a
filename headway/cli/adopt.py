"""`headway adopt`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, Json
from headway.cli.output import output
from headway.ledger import Ledger, adoption
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["adopt"]


@examples(
    "headway adopt shop kubernetes/production",
)
def adopt(
    app: AppArgument,
    target: Annotated[str, typer.Argument(help="Target that the app runs on, such as kubernetes/production")],
    _json: Json = False,
) -> None:
    """Record in a new or lost ledger what a platform runs of an app."""
    block = asyncio.run(connections().load_target(target))
    with Ledger.open(ledger_url()) as ledger:
        environment, revisions = adoption.adopt(ledger, app, target, block)
    *earlier, live = revisions
    output.say(
        f"{app} {environment}: {live} is live; available for a rollback: {', '.join(reversed(earlier)) or 'none'}"
    )
    output.result({"app": app, "environment": environment, "live": live, "earlier": earlier})
