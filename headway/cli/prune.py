"""`headway prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from headway.build.retention import prune as prune_files
from headway.cli.help_text import examples
from headway.cli.options import Json
from headway.cli.output import output
from headway.ledger import Ledger
from headway.system.paths import home, ledger_url
from headway.system.retention import keep_period

__all__ = ["prune"]


@examples(
    "headway prune --dry-run    # what would be removed",
    "headway prune",
)
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing")] = False,
    _json: Json = False,
) -> None:
    """Remove old files, steps and readings.

    `headway up` does this by itself. What is live, in progress or a rollback target stays.
    """
    period = keep_period()
    with Ledger.open(ledger_url()) as ledger:
        rows = ledger.journal.count(period) if dry_run else ledger.journal.remove(period)
        files = prune_files(home(), ledger, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for table, number in rows.items():
        output.say(f"{verb} {number} {table} older than {period.days} days from the ledger")
    for name in files:
        output.say(f"{verb} {name}")
    output.result({"dry_run": dry_run, "rows": rows, "files": files})
