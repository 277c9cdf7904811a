"""Queue of releases that wait for an environment's lock."""

from __future__ import annotations

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, record
from headway.ledger.database import writing
from headway.ledger.records import OPEN, ReleaseRecord
from headway.ledger.releases import Releases

__all__ = ["Queue"]


class Queue(Repository):
    """Releases waiting for an environment. The newest supersedes the others."""

    def __init__(self, engine: sa.Engine, clock: Clock, releases: Releases) -> None:
        super().__init__(engine, clock)
        self._releases = releases

    def enter(self, release_id: str, app: str, environment: str) -> None:
        self.leave(release_id, app, environment)
        with writing(self._engine) as db:
            db.execute(t.queue.insert().values(release_id=release_id, app=app, environment=environment))

    def leave(self, release_id: str, app: str, environment: str) -> None:
        own = (t.queue.c.release_id == release_id, t.queue.c.app == app, t.queue.c.environment == environment)
        with writing(self._engine) as db:
            db.execute(t.queue.delete().where(*own))

    def newer_release(self, release_id: str, app: str, environment: str) -> ReleaseRecord | None:
        """The newest release in the queue of this environment, if it is newer than the given one."""
        row = self._read_one(
            sa.select(t.releases)
            .join(t.queue, t.queue.c.release_id == t.releases.c.id)
            .where(t.queue.c.app == app, t.queue.c.environment == environment, t.releases.c.state.in_(OPEN))
            .where(t.releases.c.number > self._releases.get(release_id).number)
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return record(ReleaseRecord, row) if row else None
