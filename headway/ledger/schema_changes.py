"""Schema changes: expand and contract migrations that are waiting, running, done or failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, new_id, record
from headway.ledger.database import writing
from headway.ledger.locks import Locks
from headway.ledger.records import ChangeState, SchemaChange
from headway.ledger.revisions import Revisions

__all__ = ["SchemaChanges"]

MAX_OUTPUT = 64 * 1024  # characters of output that are kept


class SchemaChanges(Repository):
    """Schema changes by environment. The writer holds the environment's lock."""

    def __init__(self, engine: sa.Engine, clock: Clock, locks: Locks, revisions: Revisions) -> None:
        super().__init__(engine, clock)
        self._locks = locks
        self._revisions = revisions

    def plan(
        self,
        release_id: str,
        app: str,
        environment: str,
        revision: str,
        *,
        kind: Literal["expand", "contract"],
        files: Sequence[str],
    ) -> SchemaChange:
        """Record a change that is to be made.

        Changes that earlier runs left unfinished are closed: the caller holds the lock, so those runs have ended.
        """
        own = (t.schema_changes.c.app == app, t.schema_changes.c.environment == environment)
        row = {
            "id": new_id(),
            "release_id": release_id,
            "app": app,
            "environment": environment,
            "revision": revision,
            "kind": kind,
            "state": "waiting",
            "files": list(files),
            "detail": "",
            "output": "",
            "decided_at": self._now(),
        }
        died = {"state": "failed", "detail": "its run died", "finished_at": self._now()}
        interrupted = (t.schema_changes.c.kind == "expand", t.schema_changes.c.state == "running")
        abandoned = (t.schema_changes.c.due_at.is_(None), t.schema_changes.c.state == "waiting")
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(*own, *interrupted).values(died))
            db.execute(t.schema_changes.update().where(*own, *abandoned).values(state="cancelled"))
            db.execute(t.schema_changes.insert().values(row))
        return self.get(str(row["id"]))

    def get(self, change_id: str) -> SchemaChange:
        return self._select(t.schema_changes.c.id == change_id)[0]

    def start(self, change: SchemaChange, token: int) -> None:
        """Record that a change starts, before its command runs. Raises LockLost."""
        values = {"state": "running", "detail": "", "started_at": self._now(), "finished_at": None}
        with writing(self._engine) as db:
            self._locks.require(db, change.app, change.environment, token)
            db.execute(t.schema_changes.update().where(t.schema_changes.c.id == change.id).values(values))

    def finish(self, change_id: str, state: ChangeState, detail: str, output: str = "") -> None:
        """Record how a change ended, and the end of what its commands printed."""
        values = {"state": state, "detail": detail, "finished_at": self._now()}
        values |= {"output": output[-MAX_OUTPUT:]} if output else {}
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(t.schema_changes.c.id == change_id).values(values))

    def schedule_contract(self, release_id: str, environment: str, due_at: datetime) -> None:
        """Set the time of the contract migration of a release that was rolled out, if it has one."""
        own = (t.schema_changes.c.release_id == release_id, t.schema_changes.c.environment == environment)
        waiting = (t.schema_changes.c.kind == "contract", t.schema_changes.c.state == "waiting")
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(*own, *waiting).values(due_at=due_at))

    def due_contracts(self, now: datetime) -> list[SchemaChange]:
        """Contract migrations that are due, and those that a dead run left running. The oldest first."""
        return self._select(
            t.schema_changes.c.kind == "contract",
            t.schema_changes.c.state.in_(("waiting", "running")),
            t.schema_changes.c.due_at <= now,
        )

    def scheduled_contracts(self, app: str, environment: str) -> list[SchemaChange]:
        """Contract migrations that have a time and wait for it."""
        return self._select(
            t.schema_changes.c.app == app,
            t.schema_changes.c.environment == environment,
            t.schema_changes.c.kind == "contract",
            t.schema_changes.c.state == "waiting",
            t.schema_changes.c.due_at.is_not(None),
        )

    def contracts_after(self, app: str, environment: str, revision: str | None) -> list[SchemaChange]:
        """Contract migrations of revisions newer than this one, the newest first; all of them for None."""
        contracts = self._select(
            t.schema_changes.c.app == app,
            t.schema_changes.c.environment == environment,
            t.schema_changes.c.kind == "contract",
        )
        saved = self._revisions.saved_at(app, environment)
        return [one for one in reversed(contracts) if revision is None or saved[one.revision] > saved[revision]]

    def by_release(self, release_id: str) -> list[SchemaChange]:
        return self._select(t.schema_changes.c.release_id == release_id)

    def _select(self, *wanted: sa.ColumnElement[bool]) -> list[SchemaChange]:
        query = sa.select(t.schema_changes).where(*wanted).order_by(t.schema_changes.c.decided_at)
        return [record(SchemaChange, row) for row in self._read(query)]
