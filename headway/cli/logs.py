"""`headway logs`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, EnvironmentArgument, Json
from headway.cli.output import output
from headway.cli.status import unknown_app
from headway.domain.errors import NotFound, UsageError
from headway.domain.log_lines import LogLine
from headway.domain.ports import Target
from headway.ledger import Ledger
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["logs"]


@examples(
    "headway logs shop production",
    "headway logs shop production -f",
    "headway logs shop production --revision 3f2a9c1 -n 1000",
)
def logs(
    app: AppArgument,
    environment: EnvironmentArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines as they come, until Ctrl-C")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Number of last lines of each instance")] = 100,
    revision: Annotated[str | None, typer.Option(help="Revision or commit; default: the live one")] = None,
    every: Annotated[bool, typer.Option("--all", help="Lines of all revisions whose logs exist")] = False,
    json: Json = False,
) -> None:
    """Print the logs of an app's instances, in order of time.

    The times are in UTC. Without --revision and --all the lines are those of the live revision; --follow adds the new
    lines of every revision, so that a release in progress is seen. --json ignores --follow.
    """
    if revision and every:
        raise UsageError("--revision and --all exclude each other", "leave one of them out")
    with Ledger.open(ledger_url()) as ledger:
        live = ledger.rollouts.live(app, environment)
        known = ledger.rollouts.environments(app)
        if not known:
            raise unknown_app(app, ledger)
        if environment not in known:
            raise NotFound(f"{app} was never released to {environment}", f"it is in: {', '.join(known)}")
        found, spec = ledger.revisions.find(app, revision or live or "", environment=environment)
    target = asyncio.run(connections().load_target(spec.target))
    wanted = None if every or not (revision or live) else found.id
    if follow and not json:
        for line in _followed(target, app, wanted, lines, only=revision is not None):
            _say(line)
        return
    collected = list(target.logs(app, wanted, lines=lines))
    for line in collected:
        _say(line)
    output.result([line._asdict() for line in collected])


def _followed(target: Target, app: str, revision: str | None, lines: int, *, only: bool) -> Iterator[LogLine]:
    """The last lines of a revision, then the new ones; unless `only` it is wanted, those of every revision."""
    if only:
        yield from target.logs(app, revision, lines=lines, follow=True)
        return
    begun = datetime.now(UTC)
    for line in target.logs(app, lines=lines, follow=True):  # one call, so that no line is lost in between
        is_new = line.at is not None and line.at >= begun
        if revision is None or revision in line.instance or is_new:
            yield line


def _say(line: LogLine) -> None:
    at = f"{line.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] if line.at else f"{'(no time)':23}"
    output.say(f"{at} {line.instance}: {line.text}")
