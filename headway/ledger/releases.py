"""Releases and their stages, and what earlier ones know: checks that passed, coverage."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound, UsageError
from headway.domain.source import CheckReport, Coverage
from headway.ledger import schema as t
from headway.ledger.base import Book, new_id, one, record
from headway.ledger.database import writing
from headway.ledger.records import OPEN, KnownCheck, ReleaseRecord, ReleaseState, StageRecord, StageState

__all__ = ["Releases", "refuse_name_of_preview"]


class Releases(Book):
    """One way of a commit towards production each."""

    def start_release(
        self, app: str, repo: str, ref: str, *, flow_run_id: str | None, requested_by: str, preview: bool = False
    ) -> ReleaseRecord:
        """Enter a release; the run of a flow that comes back gets the one it had.

        Raises UsageError when the app's name is that of a preview, and this is not a release of it.
        """
        with writing(self._engine) as db:
            if flow_run_id and (known := one(db, sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id))):
                return record(ReleaseRecord, known)
            if not preview:
                refuse_name_of_preview(db, app)
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
        return self.release(str(row["id"]))

    def update_release(self, release_id: str, **values: object) -> ReleaseRecord:
        """Add what has become known: sha, tree, author, subject, committed_at, digest."""
        with writing(self._engine) as db:
            db.execute(t.releases.update().where(t.releases.c.id == release_id).values(**values))
        return self.release(release_id)

    def release_waits(self, release_id: str, *, waits: bool = True) -> None:
        """The release waits for a person, or goes on. One that has ended stays as it ended."""
        with writing(self._engine) as db:
            db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state="waiting" if waits else "running")
            )

    def finish_release(self, release_id: str, state: ReleaseState, reason: str) -> ReleaseRecord:
        """Close a release and whatever stage of it was going on. The first ending counts."""
        with writing(self._engine) as db:
            closed = db.execute(
                t.releases.update()
                .where(t.releases.c.id == release_id, t.releases.c.state.in_(OPEN))
                .values(state=state, reason=reason, finished_at=self._now())
            )
            if closed.rowcount:
                db.execute(
                    t.stages.update()
                    .where(t.stages.c.release_id == release_id, t.stages.c.finished_at.is_(None))
                    .values(
                        state="cancelled" if state in ("cancelled", "superseded") else "failed", finished_at=self._now()
                    )
                )
        return self.release(release_id)

    def release(self, release_id: str) -> ReleaseRecord:
        row = self._read_one(sa.select(t.releases).where(t.releases.c.id == release_id))
        if row is None:
            raise NotFound(f"the ledger has no release {release_id}", "see headway history APP")
        return record(ReleaseRecord, row)

    def find_release(self, text: str) -> ReleaseRecord:
        """By id, name (`shop#14`), flow run id, or the beginning of an id that only one has.

        Raises NotFound, UsageError.
        """
        app, _, number = text.rpartition("#")
        column = t.releases.c
        rows = self._read(
            sa.select(t.releases).where(
                sa.or_(
                    column.id.startswith(text, autoescape=True),
                    column.flow_run_id.startswith(text, autoescape=True),
                    sa.and_(column.app == app, column.number == int(number)) if number.isdecimal() else sa.false(),
                )
            )
        )
        if not rows:
            raise NotFound(f"there is no release {text}", "releases are named like shop#14: see headway history APP")
        if len(rows) > 1:
            raise UsageError(f"{text} could be any of {len(rows)} releases", "give more of its id, or its name")
        return record(ReleaseRecord, rows[0])

    def release_of_run(self, flow_run_id: str) -> ReleaseRecord | None:
        row = self._read_one(sa.select(t.releases).where(t.releases.c.flow_run_id == flow_run_id))
        return record(ReleaseRecord, row) if row else None

    def release_of_commit(self, app: str, sha: str) -> ReleaseRecord | None:
        """The newest of an app's releases of a commit."""
        own = (t.releases.c.app == app, t.releases.c.sha == sha)
        row = self._read_one(sa.select(t.releases).where(*own).order_by(t.releases.c.number.desc()).limit(1))
        return record(ReleaseRecord, row) if row else None

    def releases(self, app: str | None = None, limit: int = 20) -> list[ReleaseRecord]:
        """The newest first."""
        asked = sa.select(t.releases).order_by(t.releases.c.started_at.desc()).limit(limit)
        return [
            record(ReleaseRecord, row) for row in self._read(asked.where(t.releases.c.app == app) if app else asked)
        ]

    def open_releases(self) -> list[ReleaseRecord]:
        return [
            record(ReleaseRecord, row) for row in self._read(sa.select(t.releases).where(t.releases.c.state.in_(OPEN)))
        ]

    def apps(self) -> list[str]:
        """Released from here, or adopted; previews while they stand."""
        known = sa.union(sa.select(t.releases.c.app), sa.select(t.rollouts.c.app)).subquery()
        gone = sa.select(t.previews.c.app).where(t.previews.c.closed_at.is_not(None))
        asked = sa.select(known.c.app).where(known.c.app.not_in(gone)).order_by(known.c.app)
        return [row["app"] for row in self._read(asked)]

    # --- stages ------------------------------------------------------------------------------------------------

    def stage_started(self, release_id: str, name: str, state: StageState = "running") -> None:
        """A stage that is repeated keeps its place."""
        own = (t.stages.c.release_id == release_id, t.stages.c.name == name)
        begun = {"state": state, "detail": "", "started_at": self._now(), "finished_at": None}
        with writing(self._engine) as db:
            if not db.execute(t.stages.update().where(*own).values(begun)).rowcount:
                last = db.scalar(sa.select(sa.func.max(t.stages.c.position)).where(t.stages.c.release_id == release_id))
                place = {"release_id": release_id, "name": name, "position": (last or 0) + 1}
                db.execute(t.stages.insert().values(place | begun))

    def stage_finished(self, release_id: str, name: str, state: StageState, detail: str) -> None:
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name)
                .values(state=state, detail=detail, finished_at=self._now())
            )

    def stage_waits(self, release_id: str, name: str, asks: str) -> None:
        """The stage asks a person, or with no words goes on."""
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name, t.stages.c.finished_at.is_(None))
                .values(state="waiting" if asks else "running", detail=asks)
            )

    def stages(self, release_id: str) -> list[StageRecord]:
        asked = sa.select(t.stages).where(t.stages.c.release_id == release_id).order_by(t.stages.c.position)
        return [StageRecord(**row) for row in self._read(asked)]

    # --- what earlier releases know ----------------------------------------------------------------------------

    def check_passed(self, key: str) -> KnownCheck | None:
        row = self._read_one(
            sa.select(t.checks.c.report, t.releases.c.app, t.releases.c.number)
            .join(t.releases, t.releases.c.id == t.checks.c.release_id)
            .where(t.checks.c.key == key)
        )
        return KnownCheck(release=f"{row['app']}#{row['number']}", report=CheckReport(**row["report"])) if row else None

    def remember_check(self, key: str, release_id: str, report: CheckReport) -> None:
        """The first release in which it passed is the one that is named."""
        with writing(self._engine) as db:
            if not one(db, sa.select(t.checks.c.key).where(t.checks.c.key == key)):
                row = {"key": key, "release_id": release_id, "report": report.model_dump(mode="json")}
                db.execute(t.checks.insert().values(row))

    def remember_coverage(self, release_id: str, check: str, coverage: Coverage) -> None:
        own = (t.coverages.c.release_id == release_id, t.coverages.c.check == check)
        with writing(self._engine) as db:
            db.execute(t.coverages.delete().where(*own))
            row = {"release_id": release_id, "check": check, "coverage": coverage.model_dump(mode="json")}
            db.execute(t.coverages.insert().values(row))

    def last_coverage(self, app: str, check: str) -> Coverage | None:
        """Of the last release that succeeded."""
        row = self._read_one(
            sa.select(t.coverages.c.coverage)
            .join(t.releases, t.releases.c.id == t.coverages.c.release_id)
            .where(t.releases.c.app == app, t.coverages.c.check == check, t.releases.c.state == "succeeded")
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return Coverage(**row["coverage"]) if row else None


def refuse_name_of_preview(db: sa.Connection, app: str) -> None:
    """Raises UsageError when an app would be called as a preview is."""
    taken = one(db, sa.select(t.previews).where(t.previews.c.app == app))
    if taken:
        raise UsageError(
            f"{app} is the preview of pull request {taken['number']} of {taken['of']}", "call the app something else"
        )
