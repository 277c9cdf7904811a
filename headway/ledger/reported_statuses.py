"""Statuses reported to git hosts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Repository, record
from headway.ledger.database import writing
from headway.ledger.records import ReleaseRecord

__all__ = ["REPORT_FOR", "ReportedStatuses"]

COMPLETE = ""  # the name under which the end of the reports of a release is saved
REPORT_FOR = timedelta(days=7)  # a host that could not be reached for this long gets no more reports


class ReportedStatuses(Repository):
    """The last text that was reported under each name, by release."""

    def releases_to_report(self, apps: Sequence[str]) -> list[ReleaseRecord]:
        """Releases of these apps whose reports are not complete, the oldest first."""
        complete = sa.select(t.reported_statuses.c.release_id).where(t.reported_statuses.c.name == COMPLETE)
        query = sa.select(t.releases).where(
            t.releases.c.app.in_(apps),
            t.releases.c.sha.is_not(None),
            t.releases.c.started_at > self._now() - REPORT_FOR,
            t.releases.c.id.not_in(complete),
        )
        return [record(ReleaseRecord, row) for row in self._read(query.order_by(t.releases.c.started_at))]

    def by_release(self, release_id: str) -> dict[str, str]:
        """The last text reported, by name."""
        rows = self._read(sa.select(t.reported_statuses).where(t.reported_statuses.c.release_id == release_id))
        return {row["name"]: row["said"] for row in rows}

    def last(self, app: str, name: str) -> str | None:
        """The last text reported under this name, of the app's newest release that has one."""
        query = (
            sa.select(t.reported_statuses.c.said)
            .join(t.releases, t.releases.c.id == t.reported_statuses.c.release_id)
            .where(t.releases.c.app == app, t.reported_statuses.c.name == name)
            .order_by(t.releases.c.number.desc())
        )
        row = self._read_one(query.limit(1))
        return row["said"] if row else None

    def save(self, release_id: str, name: str, text: str) -> None:
        own = (t.reported_statuses.c.release_id == release_id, t.reported_statuses.c.name == name)
        with writing(self._engine) as db:
            if not db.execute(t.reported_statuses.update().where(*own).values(said=text)).rowcount:
                db.execute(t.reported_statuses.insert().values(release_id=release_id, name=name, said=text))

    def mark_complete(self, release_id: str) -> None:
        """Record that the release has ended and its last status was reported."""
        self.save(release_id, COMPLETE, "")
