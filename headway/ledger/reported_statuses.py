"""What git hosts have been told of a release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import record
from headway.ledger.database import writing
from headway.ledger.records import ReleaseRecord
from headway.ledger.releases import Releases

__all__ = ["Told"]

ALL = ""  # the name of the last word: nothing more is to be told
PATIENCE = timedelta(days=7)  # a host that was not told by then is not told any more


class Told(Releases):
    """A name and what was said last under it, for each release."""

    def releases_to_tell(self, apps: Sequence[str]) -> list[ReleaseRecord]:
        """Releases of these apps of which not all was told; the oldest first."""
        done = sa.select(t.told.c.release_id).where(t.told.c.name == ALL)
        asked = sa.select(t.releases).where(
            t.releases.c.app.in_(apps),
            t.releases.c.sha.is_not(None),
            t.releases.c.started_at > self._now() - PATIENCE,
            t.releases.c.id.not_in(done),
        )
        return [record(ReleaseRecord, row) for row in self._read(asked.order_by(t.releases.c.started_at))]

    def told(self, release_id: str) -> dict[str, str]:
        """What was said last, by name."""
        rows = self._read(sa.select(t.told).where(t.told.c.release_id == release_id))
        return {row["name"]: row["said"] for row in rows}

    def told_last(self, app: str, name: str) -> str | None:
        """What was said last under this name, of the newest of an app's releases of which anything was."""
        asked = (
            sa.select(t.told.c.said)
            .join(t.releases, t.releases.c.id == t.told.c.release_id)
            .where(t.releases.c.app == app, t.told.c.name == name)
            .order_by(t.releases.c.number.desc())
        )
        row = self._read_one(asked.limit(1))
        return row["said"] if row else None

    def remember_told(self, release_id: str, name: str, said: str) -> None:
        own = (t.told.c.release_id == release_id, t.told.c.name == name)
        with writing(self._engine) as db:
            if not db.execute(t.told.update().where(*own).values(said=said)).rowcount:
                db.execute(t.told.insert().values(release_id=release_id, name=name, said=said))

    def told_all(self, release_id: str) -> None:
        """It has ended, and the host knows."""
        self.remember_told(release_id, ALL, "")
