"""`headway status`, `history` and `logs`: read from the ledger, without a server."""

from __future__ import annotations

from typing import Any

from headway.cli.output import output
from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import Ledger, ReleaseRecord, RolloutRecord
from headway.ledger.records import FORK
from headway.system.paths import ledger_url

__all__ = ["history", "logs", "status", "waits_for"]


def status(app: str | None, *, live: bool) -> None:
    with Ledger.open(ledger_url()) as ledger:
        previews = {one.of for one in ledger.previews()}
        apps = [app] if app else sorted({*ledger.apps(), *previews} - ledger.previews_named())
        if app and app not in {*ledger.apps(), *previews}:
            raise _unknown(app, ledger)
        told = [_app(ledger, name) for name in apps]
        if live:
            _ask_platforms(ledger, told)
    if not told:
        output.say("nothing was ever released here: headway release PATH")
    for one in told:
        output.say(one["app"])
        for place in one["environments"]:
            held = f", held by {place['held_by']}" if place["held_by"] else ""
            output.say(f"  {place['environment']:14} {place['live'] or 'nothing'}{held}")
            for line in place.get("platform", ()):
                output.say(f"  {'':14}   {line}")
        for contract in one["contracts"]:
            output.say(f"  {contract['environment']:14} contract of {contract['revision']} on {contract['due_at']}")
        for preview in one["previews"]:
            output.say(f"  #{preview['number']:<13} {preview['url'] or 'nothing'} {preview['waits_for']}".rstrip())
        for going in one["open"]:
            output.say(f"  {going['name']} {going['state']} {going['waits_for']}".rstrip())
        if one["failed"]:
            output.say(f"  {one['failed']}")
    output.result(told)


def _app(ledger: Ledger, app: str) -> dict[str, Any]:
    environments = []
    for environment in ledger.environments(app):
        holder = ledger.lock_holder(app, environment)
        environments.append(
            {
                "environment": environment,
                "live": ledger.live(app, environment),
                "held_by": holder.holder if holder and not holder.expired else None,
            }
        )
    going = [
        {"name": release.name, "state": release.state, "waits_for": waits_for(ledger, release)}
        for release in ledger.open_releases()
        if release.app == app
    ]
    contracts = [
        {"environment": place, "revision": one.revision, "due_at": f"{one.due_at:%Y-%m-%d %H:%M} UTC"}
        for place in ledger.environments(app)
        for one in ledger.waiting_contracts(app, place)
    ]
    previews = [
        {"app": one.app, "number": one.number, "head": one.head, "url": one.url, "expires_at": one.expires_at}
        | {"waits_for": "; ".join(waits_for(ledger, each) for each in ledger.open_releases() if each.app == one.app)}
        for one in ledger.previews(app)
    ]
    failed = [last.summary for last in ledger.releases(app, 1) if last.state in ("failed", "rolled_back")]
    return {
        "app": app,
        "environments": environments,
        "contracts": contracts,
        "open": going,
        "previews": previews,
        "failed": failed[0] if failed else None,
    }


def _ask_platforms(ledger: Ledger, told: list[dict[str, Any]]) -> None:
    """Add what the platform of each environment says runs there; one that does not answer says that."""
    import asyncio

    from headway.service.prefect.connections import connections

    for one in told:
        for place in one["environments"]:
            if place["live"]:
                _, spec = ledger.revision(one["app"], place["live"], environment=place["environment"])
                try:
                    place["platform"] = list(asyncio.run(connections().load_target(spec.target)).describe(one["app"]))
                except HeadwayError as silent:
                    place["platform"] = [silent.what]


def waits_for(ledger: Ledger, release: ReleaseRecord) -> str:
    """Which person's word an open release waits for, and how to give it; empty when it waits for nobody."""
    if asked := ledger.waiting_approval(release.id):
        until = f"{asked.expires_at:%Y-%m-%d %H:%M} UTC"
        if asked.asks == FORK:
            return (
                f"is from a fork, and waits for somebody to look at it before {until}: headway approve {release.name}"
            )
        if asked.frozen:
            return f"waits, {asked.environment} is frozen until {until}: headway approve {release.name} --reason WHY"
        if not_ready := asked.evidence.get("not_ready"):
            said = "; ".join(not_ready)
            return f"waits, {asked.environment} is not ready ({said}): to accept that: headway approve {release.name}"
        return f"waits for an approval of {asked.environment} before {until}: headway approve {release.name}"
    for stage in ledger.stages(release.id):
        if stage.state == "waiting" and stage.finished_at is None:
            place = f"{release.app} {stage.name}"
            return f"asks a person: {stage.detail}: headway promote, skip or abort {place}"
    return ""


def history(app: str, limit: int) -> None:
    """Releases, and the ways back that somebody asked for, the newest first."""
    with Ledger.open(ledger_url()) as ledger:
        found: list[ReleaseRecord | RolloutRecord] = [*ledger.releases(app, limit), *ledger.ways_back(app, limit)]
        if not found:
            raise _unknown(app, ledger)
    found = sorted(found, key=lambda one: one.started_at, reverse=True)[:limit]
    told = [_released(one) if isinstance(one, ReleaseRecord) else _went_back(one) for one in found]
    for one, words in zip(found, told, strict=True):
        took = f"{(one.finished_at - one.started_at).total_seconds():.0f} s" if one.finished_at else "going on"
        when = f"{one.started_at:%Y-%m-%d %H:%M} {took:>9}"
        first = f"{words['name']:12} {one.state:12} {words['revision']} {when}  {words['subject'] or ''}"
        output.say(first + (f"\n{'':13}{one.reason}" if one.reason else ""))
    output.result(told)


def _released(release: ReleaseRecord) -> dict[str, Any]:
    return release.model_dump(mode="json") | {"name": release.name, "revision": (release.sha or "")[:7]}


def _went_back(way: RolloutRecord) -> dict[str, Any]:
    to = way.plan.new
    kept = way.model_dump(mode="json", exclude={"plan", "token", "release_id"})
    about = {"name": "rollback", "revision": to[:7], "subject": f"{way.environment} to {to or 'nothing'}"}
    return kept | about


def logs(app: str, environment: str, *, follow: bool, lines: int, revision: str | None) -> None:
    with Ledger.open(ledger_url()) as ledger:
        live = ledger.live(app, environment)
        known = ledger.environments(app)
        if not known:
            raise _unknown(app, ledger)
        if environment not in known:
            raise NotFound(f"{app} was never released to {environment}", f"it is in: {', '.join(known)}")
        _, spec = ledger.revision(app, revision or live or "", environment=environment)
    import asyncio

    from headway.service.prefect.connections import connections

    target = asyncio.run(connections().load_target(spec.target))
    said = target.logs(app, revision, lines=lines, follow=follow and not output.json)
    collected = []
    for line in said:
        output.say(line)
        if output.json:
            collected.append(line)
    output.result(collected)


def _unknown(app: str, ledger: Ledger) -> NotFound:
    return NotFound(f"no app {app} was ever released here", f"there are: {', '.join(ledger.apps()) or 'none'}")
