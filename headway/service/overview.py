"""What is live of an app, what goes on and what waits for whom, from the ledger."""

from __future__ import annotations

from typing import Any

from headway.config import PREVIEW
from headway.domain.errors import NotFound
from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.release_inputs import SETTINGS
from headway.service.pending import pending_decision

__all__ = ["app_overview"]


def app_overview(ledger: Ledger, app: str, open_releases: list[ReleaseRecord]) -> dict[str, Any]:
    """Environments with what is live there, and what goes on, waits or has failed.

    `open_releases` are those of all apps, which are read once.
    """
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
