"""Show, export and verify the audit trail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.lazy_group import typer_app
from headway.cli.options import Json
from headway.cli.output import output
from headway.domain.errors import HeadwayError, UsageError
from headway.domain.text import printable
from headway.ledger import Ledger
from headway.ledger.audit import AuditEvent, Head, faults
from headway.ledger.audit_head import read_head
from headway.system.paths import home, ledger_url

__all__ = ["commands"]

MOST = 10  # faults that are printed

commands = typer_app(help=__doc__)


@commands.command("list")
@examples("headway audit list", "headway audit list --subject shop --action rollout")
def list_(
    subject: Annotated[str | None, typer.Option(help="Only events of what begins with this: shop, shop#14")] = None,
    action: Annotated[str | None, typer.Option(help="Only actions that begin with this: rollout, role.granted")] = None,
    limit: Annotated[int, typer.Option(help="Number of events")] = 20,
    _json: Json = False,
) -> None:
    """List the newest events, the newest last."""
    with Ledger.open(ledger_url()) as ledger:
        events = ledger.audit.last(limit, subject=subject, action=action)
    rows = [
        (
            str(event.number),
            f"{event.at:%Y-%m-%d %H:%M:%S}",
            event.principal,
            event.action,
            event.subject,
            _facts(event),
        )
        for event in events
    ]
    heads = ("number", "time (UTC)", "by", "action", "subject", "details")
    output.table(heads, [tuple(map(printable, row)) for row in rows])
    output.result([event.model_dump(mode="json") for event in events])


def _facts(event: AuditEvent) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.details.items() if value not in (None, "", [], {}))


@commands.command()
@examples("headway audit export", "headway audit export --after 1200")
def export(
    after: Annotated[int, typer.Option(help="Only events with a higher number")] = 0,
) -> None:
    """Print all events as JSON, one a line, oldest first.

    Keep the lines on another machine: `headway audit verify --export FILE` compares the ledger with them.
    """
    with Ledger.open(ledger_url()) as ledger:
        for event in ledger.audit.events(after=after):
            print(event.model_dump_json())


@commands.command()
@examples("headway audit verify", "headway audit verify --export audit.jsonl")
def verify(
    export: Annotated[Path | None, typer.Option(help="An earlier export: its events must be in the ledger")] = None,
    _json: Json = False,
) -> None:
    """Find events that were changed, removed, added or reordered.

    The trail is compared with its own hashes, and with its head, which the service signs every 10 seconds.
    """
    known = [head for head in (read_head(home()),) if head]
    if not known:
        output.warn("there is no signed head: events that were removed at the end are not noticed")
    with Ledger.open(ledger_url()) as ledger:
        events = list(ledger.audit.events())
    found = list(faults(events, known + (_heads(export) if export else [])))
    output.result({"events": len(events), "head": events[-1].hash if events else None, "faults": found})
    if found:
        output.say(*found[:MOST])
        raise HeadwayError(
            f"the audit trail was changed: {len(found)} faults", "compare it with a backup, or an export kept elsewhere"
        )
    output.say(f"{len(events)} events, none was changed; the newest has the hash {events[-1].hash if events else '-'}")


def _heads(file: Path) -> list[Head]:
    try:
        events = [AuditEvent.model_validate(json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{file}: is no export of the audit trail: {error}", "headway audit export writes one"
        ) from error
    return [event.as_head() for event in events]
