"""The previews of pull requests: apps of their own, that come and go."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from headway.domain.errors import UsageError
from headway.ledger import schema as t
from headway.ledger.base import Book, new_id, one, record
from headway.ledger.database import one_at_a_time, writing
from headway.ledger.records import PreviewRecord
from headway.ledger.reported_statuses import PATIENCE

__all__ = ["Previews"]


class Previews(Book):
    """One a pull request, opened as often as somebody wants it again."""

    def open_preview(self, app: str, *, of: str, number: int, head: str, fork: bool) -> PreviewRecord:
        """It is wanted, with this commit. Raises UsageError when another app has its name."""
        now = self._now()
        new = {"head": head, "fork": fork, "updated_at": now, "closed_at": None, "reason": "", "told": False}
        new["given_up_at"] = None
        with writing(self._engine) as db:
            one_at_a_time(db, f"preview {app}")
            ours = (t.previews.c.app == app, t.previews.c.of == of)
            if db.execute(t.previews.update().where(*ours).values(new)).rowcount:
                return record(PreviewRecord, db.execute(_named(app)).mappings().one())
            for known in (t.apps.c.name, t.releases.c.app, t.rollouts.c.app, t.previews.c.app):
                if one(db, sa.select(known).where(known == app).limit(1)):
                    raise UsageError(
                        f"{app}: an app has this name, so pull request {number} of {of} cannot have it",
                        "call that app something else; previews are named APP-pr-NUMBER",
                    )
            row = {"app": app, "of": of, "number": number, "mark": new_id(), "opened_at": now}
            db.execute(t.previews.insert().values(row | new))
            return record(PreviewRecord, db.execute(_named(app)).mappings().one())

    def preview_is_up(self, app: str, url: str | None, expires_at: datetime | None) -> None:
        """What was asked for last is deployed, there and until then."""
        with writing(self._engine) as db:
            up = {"url": url, "expires_at": expires_at, "updated_at": self._now(), "told": False}
            up |= {"closed_at": None, "reason": "", "given_up_at": None}
            db.execute(t.previews.update().where(t.previews.c.app == app).values(up))

    def close_preview(self, app: str, reason: str) -> None:
        """Nothing of it is left. The first reason counts."""
        with writing(self._engine) as db:
            gone = {"closed_at": self._now(), "reason": reason, "url": None, "expires_at": None, "told": False}
            stands = (t.previews.c.app == app, t.previews.c.closed_at.is_(None))
            db.execute(t.previews.update().where(*stands).values(gone))

    def give_up_preview(self, app: str) -> None:
        """It cannot be torn down just now, whatever was tried."""
        with writing(self._engine) as db:
            stands = (t.previews.c.app == app, t.previews.c.closed_at.is_(None))
            db.execute(t.previews.update().where(*stands).values(given_up_at=self._now()))

    def preview_told(self, app: str) -> None:
        """Its host knows that it is closed."""
        with writing(self._engine) as db:
            closed = (t.previews.c.app == app, t.previews.c.closed_at.is_not(None))
            db.execute(t.previews.update().where(*closed).values(told=True))

    def preview(self, app: str) -> PreviewRecord | None:
        """By the name of its own app."""
        row = self._read_one(_named(app))
        return record(PreviewRecord, row) if row else None

    def previews(self, of: str | None = None) -> list[PreviewRecord]:
        """Those that stand, by app and number."""
        asked = sa.select(t.previews).where(t.previews.c.closed_at.is_(None))
        asked = asked.where(t.previews.c.of == of) if of else asked
        ordered = asked.order_by(t.previews.c.of, t.previews.c.number)
        return [record(PreviewRecord, row) for row in self._read(ordered)]

    def previews_to_tell(self, of: Collection[str]) -> list[PreviewRecord]:
        """Of these apps, those whose host has not had the last word, and may take it yet."""
        lately = sa.or_(t.previews.c.closed_at.is_(None), t.previews.c.closed_at > self._now() - PATIENCE)
        asked = sa.select(t.previews).where(t.previews.c.of.in_(of), t.previews.c.told.is_(False), lately)
        return [record(PreviewRecord, row) for row in self._read(asked)]

    def previews_named(self) -> set[str]:
        """The names of all that there ever were."""
        return {row["app"] for row in self._read(sa.select(t.previews.c.app))}


def _named(app: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(t.previews).where(t.previews.c.app == app)
