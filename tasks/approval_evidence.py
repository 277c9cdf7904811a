"""Evidence for an approval: the commits, checks and schema changes that a release brings to an environment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from headway import config
from headway.domain import freeze_windows
from headway.domain.errors import MigrationRefused, SourceError
from headway.domain.revision import LaunchSpec
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.policy.readiness.checklist import Result, unready
from headway.policy.schema_migrations import Decision, decide, is_migration
from headway.scm import git
from tasks.release_record import ReleaseSession

__all__ = ["evidence", "schema_decision"]


async def evidence(
    release: ReleaseSession,
    source: Source,
    rules: config.Environment,
    spec: LaunchSpec,
    ready: Iterable[Result] = (),
) -> dict[str, Any]:
    """What a person should know of this revision before they decide."""
    ledger, record = release.ledger, release.record
    live = ledger.rollouts.live(record.app, spec.environment)
    before = ledger.revisions.find(record.app, live, environment=spec.environment)[0].sha if live else None
    commits = await asyncio.to_thread(_commits, source, before)
    frozen = freeze_windows.closed(rules.freeze, datetime.now(UTC))
    return {
        "release": record.name,
        "sha": source.sha,
        "author": source.author,
        "digest": spec.artifact.digest,
        "configuration": spec.configuration_hash(),
        "live": live,
        "frozen": str(frozen or ""),
        "database": await _schema_decision(ledger, record.app, source, spec),
        "readiness": [one.row for one in ready],
        "not_ready": [f"{one.name}: {one.evidence}" for one in unready(ready)],
        "commits": commits,
        "stages": [
            f"{stage.name}: {stage.state} {stage.detail}".strip() for stage in ledger.stages.by_release(record.id)
        ],
    }


def _commits(source: Source, before: str | None) -> list[str]:
    """Commits of the release that are not live yet; the reason instead, when the history was rewritten."""
    try:
        commits = git.commits_between(git.mirror_of(source.workspace), before, source.sha)
    except SourceError as error:
        return [error.what]
    return [f"{sha[:7]} {subject} ({author})" for sha, author, subject in commits]


async def schema_decision(ledger: Ledger, app: str, source: Source, spec: LaunchSpec) -> Decision:
    """Which schema migration a release of this commit needs in the environment. Raises MigrationRefused."""
    rules = spec.migrations
    if rules is None:
        return Decision(None, (), "no migrations")
    live = ledger.rollouts.live(app, spec.environment)
    waiting = ledger.schema_changes.scheduled_contracts(app, spec.environment)
    new: dict[str, str] = {}
    if rules.files:
        before = ledger.revisions.find(app, live, environment=spec.environment)[0].sha if live else None
        new = await asyncio.to_thread(_new_migrations, source, before, rules.files)
    pending = f"the contract of {ledger.releases.get(waiting[0].release_id).name}" if waiting else ""
    return decide(rules.kind, new, live=bool(live), pending=pending)


def _new_migrations(source: Source, before: str | None, patterns: tuple[str, ...]) -> dict[str, str]:
    """Path -> text of the migrations that the commit adds or changes. Checks may have changed the workspace."""
    if before is None:
        return {}
    mirror = git.mirror_of(source.workspace)
    changed = git.changed_paths(mirror, before, source.sha)
    if changed is None:
        raise MigrationRefused(
            f"cannot determine which migrations are new: this repository has no commit {before}, which is live",
            "was its history rewritten? migrations/kind says what they are for this release",
        )
    texts = {path: git.file_of(mirror, source.sha, path, limit=sys.maxsize) for path in is_migration(patterns, changed)}
    return {path: text for path, text in texts.items() if text is not None}


async def _schema_decision(ledger: Ledger, app: str, source: Source, spec: LaunchSpec) -> str:
    if spec.migrations is None:
        return ""
    try:
        return str(await schema_decision(ledger, app, source, spec))
    except MigrationRefused as refused:
        return refused.what
