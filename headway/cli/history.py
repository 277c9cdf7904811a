"""`headway history`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, Json
from headway.cli.output import output
from headway.cli.status import unknown_app
from headway.ledger import Ledger, ReleaseRecord, RolloutRecord
from headway.system.paths import ledger_url

__all__ = ["history"]


@examples(
    "headway history shop",
    "headway history shop --limit 5",
)
def history(
    app: AppArgument, limit: Annotated[int, typer.Option(help="Number of rows")] = 20, _json: Json = False
) -> None:
    """List the releases and rollbacks of an app, newest first."""
    with Ledger.open(ledger_url()) as ledger:
        records: list[ReleaseRecord | RolloutRecord] = [
            *ledger.releases.recent(app, limit),
            *ledger.rollouts.manual_rollbacks(app, limit),
        ]
        if not records:
            raise unknown_app(app, ledger)
    records = sorted(records, key=lambda one: one.started_at, reverse=True)[:limit]
    rows = [_release_row(one) if isinstance(one, ReleaseRecord) else _rollback_row(one) for one in records]
    for one, row in zip(records, rows, strict=True):
        took = f"{(one.finished_at - one.started_at).total_seconds():.0f} s" if one.finished_at else "going on"
        when = f"{one.started_at:%Y-%m-%d %H:%M} {took:>9}"
        first = f"{row['name']:12} {one.state:12} {row['revision']} {when}  {row['subject'] or ''}"
        output.say(first + (f"\n{'':13}{one.reason}" if one.reason else ""))
    output.result(rows)


def _release_row(release: ReleaseRecord) -> dict[str, Any]:
    return release.model_dump(mode="json") | {"name": release.name, "revision": (release.sha or "")[:7]}


def _rollback_row(rollback: RolloutRecord) -> dict[str, Any]:
    to = rollback.plan.new
    row = rollback.model_dump(mode="json", exclude={"plan", "token", "release_id"})
    return row | {"name": "rollback", "revision": to[:7], "subject": f"{rollback.environment} to {to or 'nothing'}"}
