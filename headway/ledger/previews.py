"""Preview environments of pull requests. Each is an app of its own."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from headway.domain.errors import UsageError
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, new_id, record
from headway.ledger.database import serialize, writing
from headway.ledger.records import PreviewRecord
from headway.ledger.reported_statuses import REPORT_FOR

__all__ = ["Previews", "refuse_preview_name"]


class Previews(Repository):
    """One preview per pull request. A closed one can be opened again."""

    def open(self, app: str, *, of: str, number: int, head: str, fork: bool) -> PreviewRecord:
        """Record that a preview of this commit is wanted. Raises UsageError when another app has its name."""
        now = self._now()
        new = {"head": head, "fork": fork, "updated_at": now, "closed_at": None, "reason": "", "told": False}
        new["given_up_at"] = None
        with writing(self._engine) as db:
            serialize(db, f"preview {app}")
            ours = (t.previews.c.app == app, t.previews.c.of == of)
            if db.execute(t.previews.update().where(*ours).values(new)).rowcount:
                return record(PreviewRecord, db.execute(_named(app)).mappings().one())
            for known in (t.apps.c.name, t.releases.c.app, t.rollouts.c.app, t.previews.c.app):
                if first(db, sa.select(known).where(known == app).limit(1)):
                    raise UsageError(
                        f"{app}: an app has this name, so pull request {number} of {of} cannot have it",
                        "call that app something else; previews are named APP-pr-NUMBER",
                    )
            row = {"app": app, "of": of, "number": number, "mark": new_id(), "opened_at": now}
            db.execute(t.previews.insert().values(row | new))
            return record(PreviewRecord, db.execute(_named(app)).mappings().one())

    def mark_deployed(self, app: str, url: str | None, expires_at: datetime | None) -> None:
        """Record that the preview is deployed, at this URL and until this time."""
        with writing(self._engine) as db:
            values = {"url": url, "expires_at": expires_at, "updated_at": self._now(), "told": False}
            values |= {"closed_at": None, "reason": "", "given_up_at": None}
            db.execute(t.previews.update().where(t.previews.c.app == app).values(values))

    def close(self, app: str, reason: str) -> None:
        """Record that the preview is torn down. One that is closed already keeps its reason."""
        with writing(self._engine) as db:
            values = {"closed_at": self._now(), "reason": reason, "url": None, "expires_at": None, "told": False}
            active = (t.previews.c.app == app, t.previews.c.closed_at.is_(None))
            db.execute(t.previews.update().where(*active).values(values))

    def mark_stuck(self, app: str) -> None:
        """Record that the teardown failed and needs a person."""
        with writing(self._engine) as db:
            active = (t.previews.c.app == app, t.previews.c.closed_at.is_(None))
            db.execute(t.previews.update().where(*active).values(given_up_at=self._now()))

    def mark_reported(self, app: str) -> None:
        """Record that the git host knows that it is closed."""
        with writing(self._engine) as db:
            closed = (t.previews.c.app == app, t.previews.c.closed_at.is_not(None))
            db.execute(t.previews.update().where(*closed).values(told=True))

    def get(self, app: str) -> PreviewRecord | None:
        """Find a preview by the name of its own app, such as shop-pr-42."""
        row = self._read_one(_named(app))
        return record(PreviewRecord, row) if row else None

    def active(self, of: str | None = None) -> list[PreviewRecord]:
        """Previews that are not torn down, of one app or all, by app and number."""
        query = sa.select(t.previews).where(t.previews.c.closed_at.is_(None))
        query = query.where(t.previews.c.of == of) if of else query
        ordered = query.order_by(t.previews.c.of, t.previews.c.number)
        return [record(PreviewRecord, row) for row in self._read(ordered)]

    def unreported(self, of: Collection[str]) -> list[PreviewRecord]:
        """Previews of these apps whose last state was not reported to the git host, and still can be."""
        lately = sa.or_(t.previews.c.closed_at.is_(None), t.previews.c.closed_at > self._now() - REPORT_FOR)
        query = sa.select(t.previews).where(t.previews.c.of.in_(of), t.previews.c.told.is_(False), lately)
        return [record(PreviewRecord, row) for row in self._read(query)]

    def names(self) -> set[str]:
        """Names of all previews, those torn down included."""
        return {row["app"] for row in self._read(sa.select(t.previews.c.app))}


def _named(app: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(t.previews).where(t.previews.c.app == app)


def refuse_preview_name(db: sa.Connection, app: str) -> None:
    """Raise UsageError when `app` is the name of a preview."""
    taken = first(db, sa.select(t.previews).where(t.previews.c.app == app))
    if taken:
        raise UsageError(
            f"{app} is the preview of pull request {taken['number']} of {taken['of']}", "call the app something else"
        )
