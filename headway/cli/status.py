"""`headway status`: read from the ledger; problems of the running service are added."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from headway.cli.options import Json
from headway.cli.output import output
from headway.cli.pending import pending_decision
from headway.cli.service_problems import service_problems
from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import Ledger
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["status", "unknown_app"]


def status(
    app: Annotated[str | None, typer.Argument(help="Name of an app; default: all apps")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the platforms too: instances, Kubernetes objects, events")
    ] = False,
    _json: Json = False,
) -> None:
    """Show live revisions, releases in progress and pending approvals."""
    with Ledger.open(ledger_url()) as ledger:
        previews = {one.of for one in ledger.previews.active()}
        apps = [app] if app else sorted({*ledger.releases.apps(), *previews} - ledger.previews.names())
        if app and app not in {*ledger.releases.apps(), *previews}:
            raise unknown_app(app, ledger)
        found = [_app(ledger, name) for name in apps]
        if live:
            _ask_platforms(ledger, found)
    if not found:
        output.say("no releases yet: headway release PATH")
    for one in found:
        output.say(one["app"])
        for place in one["environments"]:
            held = f", held by {place['held_by']}" if place["held_by"] else ""
            output.say(f"  {place['environment']:14} {place['live'] or 'nothing'}{held}")
            for line in place.get("platform", ()):
                output.say(f"  {'':14}   {line}")
        for contract in one["contracts"]:
            output.say(
                f"  {contract['environment']:14} contract migration of {contract['revision']} on {contract['due_at']}"
            )
        for preview in one["previews"]:
            output.say(f"  #{preview['number']:<13} {preview['url'] or 'nothing'} {preview['waits_for']}".rstrip())
        for going in one["open"]:
            output.say(f"  {going['name']} {going['state']} {going['waits_for']}".rstrip())
        if one["failed"]:
            output.say(f"  {one['failed']}")
    output.say(*service_problems())
    output.result(found)


def _app(ledger: Ledger, app: str) -> dict[str, Any]:
    environments = []
    for environment in ledger.rollouts.environments(app):
        holder = ledger.locks.holder(app, environment)
        environments.append(
            {
                "environment": environment,
                "live": ledger.rollouts.live(app, environment),
                "held_by": holder.holder if holder and not holder.expired else None,
            }
        )
    open_releases = ledger.releases.unfinished()
    going = [
        {"name": release.name, "state": release.state, "waits_for": pending_decision(ledger, release)}
        for release in open_releases
        if release.app == app
    ]
    contracts = [
        {"environment": place, "revision": one.revision, "due_at": f"{one.due_at:%Y-%m-%d %H:%M} UTC"}
        for place in ledger.rollouts.environments(app)
        for one in ledger.schema_changes.scheduled_contracts(app, place)
    ]
    previews = [
        {"app": one.app, "number": one.number, "head": one.head, "url": one.url, "expires_at": one.expires_at}
        | {"waits_for": "; ".join(pending_decision(ledger, each) for each in open_releases if each.app == one.app)}
        for one in ledger.previews.active(app)
    ]
    failed = [last.summary for last in ledger.releases.recent(app, 1) if last.state in ("failed", "rolled_back")]
    return {
        "app": app,
        "environments": environments,
        "contracts": contracts,
        "open": going,
        "previews": previews,
        "failed": failed[0] if failed else None,
    }


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
