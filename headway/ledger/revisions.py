"""Revisions: what it takes to launch each version that was released to an environment."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from headway.domain.errors import NotFound
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository
from headway.ledger.database import writing
from headway.ledger.releases import Releases
from headway.ledger.rollouts import Rollouts

__all__ = ["Revisions"]


class Revisions(Repository):
    """Revisions and their launch specs, by app and environment."""

    def __init__(self, engine: sa.Engine, clock: Clock, releases: Releases, rollouts: Rollouts) -> None:
        super().__init__(engine, clock)
        self._releases = releases
        self._rollouts = rollouts

    def save(self, revision: Revision, spec: LaunchSpec) -> None:
        """Save a revision. One that is saved already keeps its time and gets the new spec."""
        key = {"app": revision.app, "environment": spec.environment, "id": revision.id}
        body = {"spec": spec.model_dump(mode="json")}
        with writing(self._engine) as db:
            own = [t.revisions.c[name] == value for name, value in key.items()]
            if not db.execute(t.revisions.update().where(*own).values(body)).rowcount:
                rest = {"sha": revision.sha, "revision": revision.model_dump(mode="json"), "saved_at": self._now()}
                db.execute(t.revisions.insert().values(key | body | rest))

    def find(self, app: str, text: str, *, environment: str) -> tuple[Revision, LaunchSpec]:
        """Find a revision by a prefix of its id or commit; the newest if several match.

        Raises NotFound, with the newest revisions in its hint.
        """
        column = t.revisions.c
        newest = (
            sa.select(t.revisions)
            .where(column.app == app, column.environment == environment)
            .order_by(column.saved_at.desc())
        )
        matches = sa.or_(column.id.startswith(text, autoescape=True), column.sha.startswith(text, autoescape=True))
        row = self._read_one(newest.where(matches).limit(1))
        if row is None:
            known = [one["id"] for one in self._read(newest.limit(5))]
            raise NotFound(
                f"{app} {environment}: no revision {text} was ever released here",
                f"there are: {', '.join(known) or 'none'}",
            )
        return Revision(**row["revision"]), LaunchSpec(**row["spec"])

    def saved_at(self, app: str, environment: str) -> dict[str, datetime]:
        """When each revision was first saved, by id."""
        column = t.revisions.c
        query = sa.select(column.id, column.saved_at).where(column.app == app, column.environment == environment)
        return {row["id"]: row["saved_at"] for row in self._read(query)}

    def targets(self, app: str, environment: str) -> list[str]:
        """Every target on which a rollout was started.

        A revision whose rollout never started is not counted: its target may not exist.
        """
        started = self._rollouts.started_revisions(app, environment)
        return sorted({self.find(app, one, environment=environment)[1].target for one in started})

    def longest_drain(self, app: str, environment: str) -> float:
        """The longest drain deadline of all revisions, in seconds."""
        column = t.revisions.c
        query = sa.select(column.spec).where(column.app == app, column.environment == environment)
        return max((LaunchSpec(**row["spec"]).drain for row in self._read(query)), default=0.0)

    def digests_in_use(self, history: int) -> set[str]:
        """Digests of artifacts that may be launched again.

        Those of open releases, of contract migrations that are not done yet, and of the last `history` rollouts of
        every environment, the live one included. Previews that were torn down are not counted.
        """
        digests = {release.digest for release in self._releases.unfinished() if release.digest}
        waiting = sa.select(t.schema_changes).where(t.schema_changes.c.state == "waiting").subquery()
        digests |= self._digests(waiting, waiting.c.revision)
        if history:
            last = self._rollouts.last_done(history)
            digests |= self._digests(last, last.c.new)
        return digests

    def live(self) -> list[tuple[str, str, LaunchSpec]]:
        """App, environment and launch spec of every live revision."""
        last = self._rollouts.last_done(1)
        column = t.revisions.c
        query = sa.select(column.app, column.environment, column.spec).select_from(self._revisions_of(last, last.c.new))
        rows = self._read(query.order_by(column.app, column.environment))
        return [(row["app"], row["environment"], LaunchSpec(**row["spec"])) for row in rows]

    def _digests(self, places: sa.Subquery, revision: sa.ColumnElement[str]) -> set[str]:
        digest = t.revisions.c.revision["digest"].as_string().label("digest")
        rows = self._read(sa.select(digest).distinct().select_from(self._revisions_of(places, revision)))
        return {row["digest"] for row in rows}

    def _revisions_of(self, places: sa.Subquery, revision: sa.ColumnElement[str]) -> sa.Join:
        """The revisions with these ids in these environments."""
        column = t.revisions.c
        same = (column.app == places.c.app, column.environment == places.c.environment, column.id == revision)
        return places.join(t.revisions, sa.and_(*same))
