"""Removal of an app, or of one of its environments, from the ledger."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import UsageError
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing

__all__ = ["Removal"]

OF_ROLLOUTS = (t.steps, t.orders, t.measurements)
OF_RELEASES = (
    t.receipts,
    *(t.stages, t.release_inputs, t.approvals, t.schema_changes),
    *(t.queue, t.checks, t.coverages, t.reported_statuses),
)


class Removal(Repository):
    """Removes rows for good. Locks stay, so that an older writer is still refused."""

    def environment(self, app: str, environment: str, *, by: str = audit.HEADWAY) -> None:
        """Remove the rollouts and revisions of an environment. Its releases stay."""
        with writing(self._engine) as db:
            _remove_rollouts(db, t.rollouts.c.app == app, t.rollouts.c.environment == environment)
            for table in (t.revisions, t.schema_changes):
                db.execute(table.delete().where(table.c.app == app, table.c.environment == environment))
            audit.append(db, self._now(), audit.Entry("environment.deleted", f"{app} {environment}", by))

    def app(self, app: str, *, by: str = audit.HEADWAY) -> None:
        """Remove an app with its releases, events, roles, policy and registration. The audit trail stays.

        Raises UsageError when a release is in progress, or the app has preview environments.
        """
        with writing(self._engine) as db:
            releases = sa.select(t.releases.c.id).where(t.releases.c.app == app)
            going = db.scalar(releases.where(t.releases.c.finished_at.is_(None)).limit(1))
            active = db.scalar(
                sa.select(t.previews.c.app).where(t.previews.c.of == app, t.previews.c.closed_at.is_(None))
            )
            if going or active:
                raise UsageError(f"{app}: {active or 'a release'} is in progress", f"see headway status {app}")
            _remove_rollouts(db, sa.or_(t.rollouts.c.app == app, t.rollouts.c.release_id.in_(releases)))
            approvals = sa.select(t.approvals.c.id).where(t.approvals.c.release_id.in_(releases))
            db.execute(t.approval_decisions.delete().where(t.approval_decisions.c.approval_id.in_(approvals)))
            for table in OF_RELEASES:
                db.execute(table.delete().where(table.c.release_id.in_(releases)))
            for table in (t.revisions, t.schema_changes, t.releases):
                db.execute(table.delete().where(table.c.app == app))
            db.execute(t.inbox.update().where(t.inbox.c.app == app).values(followed_by=None))
            db.execute(t.inbox.delete().where(t.inbox.c.app == app))
            for table in (t.grants, t.policies):
                db.execute(table.delete().where(table.c.app == app))
            db.execute(t.apps.delete().where(t.apps.c.name == app))
            audit.append(db, self._now(), audit.Entry("app.deleted", app, by))


def _remove_rollouts(db: sa.Connection, *wanted: sa.ColumnElement[bool]) -> None:
    rollouts = sa.select(t.rollouts.c.id).where(*wanted)
    for table in OF_ROLLOUTS:
        db.execute(table.delete().where(table.c.rollout_id.in_(rollouts)))
    db.execute(t.rollouts.delete().where(*wanted))
