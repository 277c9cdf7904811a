"""Registered apps: repositories whose webhooks Headway accepts."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound, UsageError
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, record
from headway.ledger.database import writing
from headway.ledger.previews import refuse_preview_name
from headway.ledger.records import AppRecord
from headway.scm.repository_url import place

__all__ = ["Apps"]


class Apps(Repository):
    """Registered apps, each with a repository of its own."""

    def register(
        self,
        name: str,
        *,
        repo: str,
        host: str,
        secret: str,
        by: str,
        reports: str | None = None,
        branch: str | None = None,
    ) -> AppRecord:
        """Register an app, or update it. Raises UsageError when its repository or name is in use."""
        row = {"repo": repo, "place": place(repo), "host": host, "secret": secret, "reports": reports, "branch": branch}
        with writing(self._engine) as db:
            refuse_preview_name(db, name)
            other = first(db, sa.select(t.apps).where(t.apps.c.place == row["place"], t.apps.c.name != name))
            if other:
                raise UsageError(
                    f"{row['place']} is the repository of {other['name']} already",
                    f"remove that app first: headway app remove {other['name']}",
                )
            known = db.execute(t.apps.update().where(t.apps.c.name == name).values(row)).rowcount
            if not known:
                db.execute(t.apps.insert().values(row | {"name": name, "added_at": self._now(), "added_by": by}))
            facts = {name: row[name] for name in ("place", "host", "branch", "reports")}
            audit.append(db, self._now(), audit.Entry("app.changed" if known else "app.added", name, by, facts))
        return self.get(name)

    def unregister(self, name: str, *, by: str = audit.HEADWAY) -> AppRecord:
        """Remove an app. Its deliveries that are not processed yet are ignored; its releases stay. Raises NotFound."""
        removed = self.get(name)
        with writing(self._engine) as db:
            db.execute(t.apps.delete().where(t.apps.c.name == name))
            unsettled = (t.inbox.c.app == name, t.inbox.c.state.in_(("waiting", "starting")))
            ignored = {"state": "ignored", "detail": "the app is registered no more"}
            db.execute(t.inbox.update().where(*unsettled).values(ignored))
            audit.append(db, self._now(), audit.Entry("app.removed", name, by))
        return removed

    def get(self, name: str) -> AppRecord:
        """Raises NotFound."""
        row = self._read_one(sa.select(t.apps).where(t.apps.c.name == name))
        if row is None:
            known = ", ".join(app.name for app in self.all())
            raise NotFound(f"no app {name} is registered", f"there are: {known or 'none'}: headway app add REPO")
        return record(AppRecord, row)

    def all(self) -> list[AppRecord]:
        return [record(AppRecord, row) for row in self._read(sa.select(t.apps).order_by(t.apps.c.name))]
