"""Releases: each takes one commit of an app through its environments."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound, UsageError
from headway.domain.revision import Revision
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, new_id, record
from headway.ledger.database import writing
from headway.ledger.previews import refuse_preview_name
from headway.ledger.records import OPEN, ReleaseRecord, ReleaseState

__all__ = ["MERGE_QUEUE", "Releases"]

MERGE_QUEUE = ".queue"  # ending of the name under which the checks of an app's merge groups are recorded


class Releases(Repository):
    """Releases, numbered per app."""

    def start(
        self, app: str, repo: str, ref: str, *, flow_run_id: str | None, requested_by: str, preview: bool = False
    ) -> ReleaseRecord:
        """Record a new release; a flow run that is resumed gets the release that it started before.

        Raises UsageError when `app` is the name of a preview environment and this is not a release of that preview.
        """
        with writing(self._engine) as db:
            own = sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id)
            if flow_run_id and (known := first(db, own)):
                return record(ReleaseRecord, known)
            if not preview:
                refuse_preview_name(db, app)
            last = db.scalar(sa.select(sa.func.max(t.releases.c.number)).where(t.releases.c.app == app)) or 0
            row = {
                "id": new_id(),
                "app": app,
                "number": last + 1,
                "repo": repo,
                "ref": ref,
                "flow_run_id": flow_run_id,
                "requested_by": requested_by,
                "state": "running",
                "reason": "",
                "started_at": self._now(),
            }
            db.execute(t.releases.insert().values(row))
            by, facts = requested_by or audit.HEADWAY, {"repo": repo, "ref": ref}
            audit.append(db, self._now(), audit.Entry("release.requested", f"{app}#{last + 1}", by, facts))
        return self.get(str(row["id"]))

    def adopt(self, app: str, number: int, revision: Revision) -> ReleaseRecord | None:
        """Record a release of a lost ledger, so that numbers go on after it. None if the number has another commit."""
        row = {
            "id": new_id(),
            "app": app,
            "number": number,
            "repo": "",
            "ref": revision.sha,
            "requested_by": "adoption",
            "state": "succeeded",
            "reason": "adopted",
            "started_at": self._now(),
            "finished_at": self._now(),
            "sha": revision.sha,
            "digest": revision.digest,
        }
        with writing(self._engine) as db:
            known = first(db, sa.select(t.releases).where(t.releases.c.app == app, t.releases.c.number == number))
            if known:
                found = record(ReleaseRecord, known)
                return found if found.sha == revision.sha else None
            db.execute(t.releases.insert().values(row))
        return self.get(str(row["id"]))

    def update(self, release_id: str, **values: object) -> ReleaseRecord:
        """Set columns of a release: sha, tree, author, subject, committed_at, digest, reason."""
        with writing(self._engine) as db:
            db.execute(t.releases.update().where(t.releases.c.id == release_id).values(**values))
        return self.get(release_id)

    def set_waiting(self, release_id: str, *, waiting: bool = True) -> None:
        """Record whether the release waits for a person. A release that has ended does not change."""
        with writing(self._engine) as db:
            db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state="waiting" if waiting else "running")
            )

    def finish(self, release_id: str, state: ReleaseState, reason: str) -> ReleaseRecord:
        """Close a release and its unfinished stages. A release that has ended does not change.

        A cancelled release keeps the reason that was recorded with the request.
        """
        asked = t.releases.c.reason != ""
        kept = sa.case((asked, t.releases.c.reason), else_=reason) if state == "cancelled" else reason
        with writing(self._engine) as db:
            closed = db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state=state, reason=kept, finished_at=self._now())
            )
            if closed.rowcount:
                ended = "cancelled" if state in ("cancelled", "superseded") else "failed"
                db.execute(
                    t.stages.update()
                    .where(t.stages.c.release_id == release_id, t.stages.c.finished_at.is_(None))
                    .values(state=ended, finished_at=self._now())
                )
                row = db.execute(sa.select(t.releases).where(t.releases.c.id == release_id)).mappings().one()
                facts = {name: row[name] for name in ("state", "reason", "sha", "digest")}
                event = audit.Entry("release.ended", f"{row['app']}#{row['number']}", details=facts)
                audit.append(db, self._now(), event)
        return self.get(release_id)

    def get(self, release_id: str) -> ReleaseRecord:
        """Raises NotFound."""
        row = self._read_one(sa.select(t.releases).where(t.releases.c.id == release_id))
        if row is None:
            raise NotFound(f"the ledger has no release {release_id}", "see headway history APP")
        return record(ReleaseRecord, row)

    def find(self, text: str) -> ReleaseRecord:
        """Find a release by name (`shop#14`), or by an unambiguous prefix of its id or flow run id.

        Raises NotFound, UsageError.
        """
        app, _, number = text.rpartition("#")
        column = t.releases.c
        if app and number.isdecimal():  # no id has a `#`; a query for both would read every release
            wanted = sa.and_(column.app == app, column.number == int(number))
        else:
            ids = (column.id, column.flow_run_id)
            wanted = sa.or_(*(one.startswith(text, autoescape=True) for one in ids))
        rows = self._read(sa.select(t.releases).where(wanted))
        if not rows:
            raise NotFound(f"there is no release {text}", "releases are named like shop#14: see headway history APP")
        if len(rows) > 1:
            raise UsageError(f"{text} could be any of {len(rows)} releases", "give more of its id, or its name")
        return record(ReleaseRecord, rows[0])

    def by_run(self, flow_run_id: str) -> ReleaseRecord | None:
        row = self._read_one(sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id))
        return record(ReleaseRecord, row) if row else None

    def by_commit(self, app: str, sha: str) -> ReleaseRecord | None:
        """The app's newest release of this commit."""
        own = (t.releases.c.app == app, t.releases.c.sha == sha)
        row = self._read_one(sa.select(t.releases).where(*own).order_by(t.releases.c.number.desc()).limit(1))
        return record(ReleaseRecord, row) if row else None

    def recent(self, app: str | None = None, limit: int = 20) -> list[ReleaseRecord]:
        """The newest releases first; of all apps when none is named."""
        query = sa.select(t.releases).limit(limit)
        if app:  # by number, which has an index
            query = query.where(t.releases.c.app == app).order_by(t.releases.c.number.desc())
        else:
            query = query.order_by(t.releases.c.started_at.desc())
        return [record(ReleaseRecord, row) for row in self._read(query)]

    def unfinished(self) -> list[ReleaseRecord]:
        """Releases that are running or waiting."""
        query = sa.select(t.releases).where(t.releases.c.state.in_(OPEN))
        return [record(ReleaseRecord, row) for row in self._read(query)]

    def apps(self) -> list[str]:
        """Names of the apps that were released or adopted, and of previews that are not torn down."""
        known = sa.union(sa.select(t.releases.c.app), sa.select(t.rollouts.c.app)).subquery()
        closed = sa.select(t.previews.c.app).where(t.previews.c.closed_at.is_not(None))
        wanted = (known.c.app.not_in(closed), known.c.app.not_like(f"%{MERGE_QUEUE}"))
        query = sa.select(known.c.app).where(*wanted).order_by(known.c.app)
        return [row["app"] for row in self._read(query)]
