"""Removal of old steps and readings. Releases, rollouts and approvals stay for good."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing

__all__ = ["JournalRetention"]

BATCH = 200  # rollouts whose rows are removed in one transaction: a release must not wait long for the lock


class JournalRetention(Repository):
    """Steps and readings of rollouts that ended some time ago, but for the one that is live."""

    def count(self, older_than: timedelta) -> dict[str, int]:
        """Number of rows of each table that `remove` would remove."""
        old = self._old(older_than)
        counted = {}
        for table in (t.steps, t.measurements):
            rows = sa.select(sa.func.count().label("rows")).select_from(table).where(table.c.rollout_id.in_(old))
            counted[table.name] = int(self._read(rows)[0]["rows"])
        return counted

    def remove(self, older_than: timedelta) -> dict[str, int]:
        """Remove them; returns the number of rows of each table."""
        removed = {t.steps.name: 0, t.measurements.name: 0}
        while True:
            with writing(self._engine) as db:
                batch = list(db.scalars(self._old(older_than).where(self._has_rows()).limit(BATCH)))
                for table in (t.steps, t.measurements):
                    removed[table.name] += db.execute(table.delete().where(table.c.rollout_id.in_(batch))).rowcount
            if len(batch) < BATCH:
                return removed

    def _old(self, older_than: timedelta) -> sa.Select[tuple[str]]:
        newer = t.rollouts.alias()
        replaced = sa.select(newer.c.id).where(
            newer.c.app == t.rollouts.c.app,
            newer.c.environment == t.rollouts.c.environment,
            newer.c.sequence > t.rollouts.c.sequence,
            newer.c.state == "done",
        )
        ended = t.rollouts.c.finished_at < self._now() - older_than
        return sa.select(t.rollouts.c.id).where(ended, replaced.correlate(t.rollouts).exists())

    def _has_rows(self) -> sa.ColumnElement[bool]:
        tables = (t.steps, t.measurements)
        return sa.or_(
            *(sa.select(table.c.rollout_id).where(table.c.rollout_id == t.rollouts.c.id).exists() for table in tables)
        )
