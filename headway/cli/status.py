"""`headway status`: read from the ledger; problems of the running service are added."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from headway.cli import completion
from headway.cli.ages import format_age
from headway.cli.help_text import examples
from headway.cli.options import Json
from headway.cli.output import output
from headway.cli.pending import pending_decision
from headway.cli.service_problems import service_problems
from headway.config import PREVIEW
from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.release_inputs import SETTINGS
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
        found = [_app(ledger, name, open_releases) for name in apps]
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


def _app(ledger: Ledger, app: str, open_releases: list[ReleaseRecord]) -> dict[str, Any]:
    going = [
        {"name": release.name, "state": release.state, "waits_for": pending_decision(ledger, release)}
        for release in open_releases
        if release.app == app
    ]
    environments = ledger.rollouts.environments(app)
    newest = next(iter(ledger.releases.recent(app, 1)), None)
    path = _release_path(ledger, newest) if newest else []
    contracts = [
        {"environment": place, "revision": one.revision, "due_at": f"{one.due_at:%Y-%m-%d %H:%M} UTC"}
        for place in environments
        for one in ledger.schema_changes.scheduled_contracts(app, place)
    ]
    previews = [
        {"app": one.app, "number": one.number, "head": one.head, "url": one.url, "expires_at": one.expires_at}
        | {"waits_for": "; ".join(pending_decision(ledger, each) for each in open_releases if each.app == one.app)}
        for one in ledger.previews.active(app)
    ]
    return {
        "app": app,
        "environments": [_environment(ledger, app, one) for one in dict.fromkeys((*path, *environments))],
        "contracts": contracts,
        "open": going,
        "previews": previews,
        "failed": newest.summary if newest and newest.state in ("failed", "rolled_back") else None,
    }


def _release_path(ledger: Ledger, release: ReleaseRecord) -> list[str]:
    """Environments of the release's headway.yaml; none when the release ended before it was read."""
    document = ledger.inputs.get(release.id, SETTINGS)
    return [name for name in document["settings"]["environments"] if name != PREVIEW] if document else []


def _environment(ledger: Ledger, app: str, environment: str) -> dict[str, Any]:
    """What is live in an environment, and the release that brought it there."""
    holder = ledger.locks.holder(app, environment)
    last = next(iter(ledger.rollouts.done(app, environment, 1)), None)
    live = (last.plan.new or None) if last else None
    release = _release_of(ledger, app, environment, live) if live else None
    return {
        "environment": environment,
        "reached": last is not None,
        "live": live,
        "split": str(split) if (split := ledger.rollouts.split(app, environment)) else None,
        "held_by": holder.holder if holder and not holder.expired else None,
        "release": release.name if release else None,
        "subject": release.subject if release else None,
        "author": (release.author or "").partition(" <")[0] if release else None,
        "since": last.finished_at if last and live else None,
        "url": last.url if last and live else None,
    }


def _release_of(ledger: Ledger, app: str, environment: str, revision: str) -> ReleaseRecord | None:
    """The release that launched a revision; None for one that was adopted."""
    _, spec = ledger.revisions.find(app, revision, environment=environment)
    try:
        return ledger.releases.find(spec.release) if spec.release else None
    except NotFound:
        return None


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
