"""`headway adopt`."""

from __future__ import annotations

import asyncio

from headway.cli.output import output
from headway.ledger import Ledger
from headway.ledger.adoption import adopt as enter
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["adopt"]


def adopt(app: str, target: str) -> None:
    """Raises what `headway.ledger.adoption.adopt` raises."""
    block = asyncio.run(connections().load_target(target))
    with Ledger.open(ledger_url()) as ledger:
        environment, revisions = enter(ledger, app, target, block)
    *earlier, live = revisions
    output.say(f"{app} {environment}: {live} is live; can come back: {', '.join(reversed(earlier)) or 'none'}")
    output.result({"app": app, "environment": environment, "live": live, "earlier": earlier})
