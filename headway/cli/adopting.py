"""`headway adopt`."""

from __future__ import annotations

import asyncio

from headway import project
from headway.adoption import adopt as enter
from headway.cli.output import output
from headway.home import ledger_url
from headway.ledger import Ledger

__all__ = ["adopt"]


def adopt(app: str, target: str) -> None:
    """Raises what `headway.adoption.adopt` raises."""
    block = asyncio.run(project.load_target(target))
    with Ledger.open(ledger_url()) as ledger:
        environment, revisions = enter(ledger, app, target, block)
    *earlier, live = revisions
    output.say(f"{app} {environment}: {live} is live; can come back: {', '.join(reversed(earlier)) or 'none'}")
    output.result({"app": app, "environment": environment, "live": live, "earlier": earlier})
