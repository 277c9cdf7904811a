"""The apps whose repositories Headway listens to."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound, UsageError
from headway.ledger import schema as t
from headway.ledger.base import Book, one, record
from headway.ledger.database import writing
from headway.ledger.records import AppRecord
from headway.ledger.releases import refuse_name_of_preview
from headway.scm.repository_url import place

__all__ = ["Registrations"]


class Registrations(Book):
    """One repository an app."""

    def register_app(
        self, name: str, *, repo: str, host: str, secret: str, by: str, reports: str | None = None
    ) -> AppRecord:
        """Enter an app, or what is new about it. Raises UsageError when its repository, or name, is taken."""
        row = {"repo": repo, "place": place(repo), "host": host, "secret": secret, "reports": reports}
        with writing(self._engine) as db:
            refuse_name_of_preview(db, name)
            other = one(db, sa.select(t.apps).where(t.apps.c.place == row["place"], t.apps.c.name != name))
            if other:
                raise UsageError(
                    f"{row['place']} is the repository of {other['name']} already",
                    f"take that away first: headway app remove {other['name']}",
                )
            if not db.execute(t.apps.update().where(t.apps.c.name == name).values(row)).rowcount:
                db.execute(t.apps.insert().values(row | {"name": name, "added_at": self._now(), "added_by": by}))
        return self.registered_app(name)

    def unregister_app(self, name: str) -> AppRecord:
        """Nothing that comes from its host counts any more; what was released stays. Raises NotFound."""
        gone = self.registered_app(name)
        with writing(self._engine) as db:
            db.execute(t.apps.delete().where(t.apps.c.name == name))
            unsettled = (t.inbox.c.app == name, t.inbox.c.state.in_(("waiting", "starting")))
            nothing = {"state": "ignored", "detail": "the app is registered no more"}
            db.execute(t.inbox.update().where(*unsettled).values(nothing))
        return gone

    def registered_app(self, name: str) -> AppRecord:
        row = self._read_one(sa.select(t.apps).where(t.apps.c.name == name))
        if row is None:
            known = ", ".join(app.name for app in self.registered_apps())
            raise NotFound(f"no app {name} is registered", f"there are: {known or 'none'}: headway app add REPO")
        return record(AppRecord, row)

    def registered_apps(self) -> list[AppRecord]:
        return [record(AppRecord, row) for row in self._read(sa.select(t.apps).order_by(t.apps.c.name))]
