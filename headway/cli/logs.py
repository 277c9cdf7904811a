"""`headway logs`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headway.cli.options import AppArgument, EnvironmentArgument, Json
from headway.cli.output import output
from headway.cli.status import unknown_app
from headway.domain.errors import NotFound
from headway.ledger import Ledger
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["logs"]


def logs(
    app: AppArgument,
    environment: EnvironmentArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they come, until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of last lines of each instance")] = 100,
    revision: Annotated[str | None, typer.Option(help="Revision; default: all that run")] = None,
    json: Json = False,
) -> None:
    """Print the logs of an app's instances.

    --json ignores --follow.
    """
    with Ledger.open(ledger_url()) as ledger:
        live = ledger.rollouts.live(app, environment)
        known = ledger.rollouts.environments(app)
        if not known:
            raise unknown_app(app, ledger)
        if environment not in known:
            raise NotFound(f"{app} was never released to {environment}", f"it is in: {', '.join(known)}")
        _, spec = ledger.revisions.find(app, revision or live or "", environment=environment)
    target = asyncio.run(connections().load_target(spec.target))
    collected = []
    for line in target.logs(app, revision, lines=lines, follow=follow and not json):
        output.say(line)
        if json:
            collected.append(line)
    output.result(collected)
