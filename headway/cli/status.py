"""`headway status`: read from the ledger; problems of the running service are added."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from headway.cli import completion
from headway.cli.help_text import examples
from headway.cli.options import Json
from headway.cli.output import output
from headway.cli.service_problems import service_problems
from headway.domain.ages import format_age
from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import Ledger
from headway.service.overview import app_overview
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["status", "unknown_app"]

HEADS = ("APP", "ENVIRONMENT", "RELEASE", "REVISION", "AGE", "AUTHOR", "SUBJECT", "URL")
SUBJECT = 40  # characters


@examples(
    "headway status              # every app",
    "headway status shop --live  # one app, with what its platforms run now",
)
def status(
    app: Annotated[
        str | None, typer.Argument(help="Name of an app; default: all apps", autocompletion=completion.apps)
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the platforms too: instances, Kubernetes objects, events")
    ] = False,
    _json: Json = False,
) -> None:
    """Show what is live, in progress and waiting for approval."""
    with Ledger.open(ledger_url()) as ledger:
        previews = {one.of for one in ledger.previews.active()}
        apps = [app] if app else sorted({*ledger.releases.apps(), *previews} - ledger.previews.names())
        if app and app not in {*ledger.releases.apps(), *previews}:
            raise unknown_app(app, ledger)
        open_releases = ledger.releases.unfinished()
        found = [app_overview(ledger, name, open_releases) for name in apps]
        if live:
            _ask_platforms(ledger, found)
    if not found:
        output.say("no releases yet: headway release PATH")
    else:
        _say(found)
    output.say(*service_problems())
    output.result(found)


def _say(apps: list[dict[str, Any]]) -> None:
    rows = [_row(one["app"], place) for one in apps for place in one["environments"]]
    if rows:
        output.table(HEADS, rows)
    for one in apps:
        for line in _notes(one):
            output.say(line)


def _row(app: str, place: dict[str, Any]) -> list[str]:
    age = format_age(datetime.now(UTC) - place["since"]) if place["since"] else ""
    subject = textwrap.shorten(place["subject"] or "", SUBJECT, placeholder=" ...")
    release = (place["release"] or "").removeprefix(app)
    revision = place["live"] or ("nothing" if place["reached"] else "not reached yet")
    cells = [app, place["environment"], release, revision, age, place["author"] or "", subject]
    return [*cells, place["url"] or ""]


def _notes(one: dict[str, Any]) -> Iterator[str]:
    """What is going on, waits or has failed, a line each."""
    app = one["app"]
    for place in one["environments"]:
        if place["split"]:
            yield output.style(f"{app} {place['environment']}: several versions serve: {place['split']}", "yellow")
        if place["held_by"]:
            yield f"{app} {place['environment']}: held by {place['held_by']}"
        yield from (f"{app} {place['environment']}: {line}" for line in place.get("platform", ()))
    for contract in one["contracts"]:
        yield f"{app} {contract['environment']}: contract migration of {contract['revision']} on {contract['due_at']}"
    for preview in one["previews"]:
        yield f"{app} #{preview['number']}: {preview['url'] or 'nothing'} {preview['waits_for']}".rstrip()
    for going in one["open"]:
        yield output.style(f"{going['name']} {going['state']} {going['waits_for']}".rstrip(), "yellow")
    if one["failed"]:
        yield output.style(one["failed"], "red")


def _ask_platforms(ledger: Ledger, apps: list[dict[str, Any]]) -> None:
    """Add the description of each environment by its platform, or the error of a platform that does not respond."""
    for one in apps:
        for place in one["environments"]:
            if place["live"]:
                _, spec = ledger.revisions.find(one["app"], place["live"], environment=place["environment"])
                try:
                    place["platform"] = list(asyncio.run(connections().load_target(spec.target)).describe(one["app"]))
                except HeadwayError as error:
                    place["platform"] = [error.what]


def unknown_app(app: str, ledger: Ledger) -> NotFound:
    return NotFound(f"no app {app} in the ledger", f"apps: {', '.join(ledger.releases.apps()) or 'none'}")
