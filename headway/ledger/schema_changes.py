"""What happened to databases: expands and contracts, done, failed, and still to come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import new_id, record
from headway.ledger.database import writing
from headway.ledger.records import ChangeState, SchemaChange
from headway.ledger.rollouts import Rollouts

__all__ = ["Changes"]

KEPT = 64 * 1024  # characters of output


class Changes(Rollouts):
    """One change of one database each, of an environment whose lock the writer has."""

    def decide_change(
        self,
        release_id: str,
        app: str,
        environment: str,
        revision: str,
        *,
        kind: Literal["expand", "contract"],
        files: Sequence[str],
    ) -> SchemaChange:
        """Enter what is to be done. What is left of others is closed: nobody else is at work here."""
        here = (t.schema_changes.c.app == app, t.schema_changes.c.environment == environment)
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
        left = (t.schema_changes.c.kind == "expand", t.schema_changes.c.state == "running")
        never = (t.schema_changes.c.due_at.is_(None), t.schema_changes.c.state == "waiting")
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(*here, *left).values(died))
            db.execute(t.schema_changes.update().where(*here, *never).values(state="cancelled"))
            db.execute(t.schema_changes.insert().values(row))
        return self.change(str(row["id"]))

    def change(self, change_id: str) -> SchemaChange:
        return self._changes(t.schema_changes.c.id == change_id)[0]

    def change_started(self, change: SchemaChange, token: int) -> None:
        """The word before the deed. Raises LockLost."""
        begun = {"state": "running", "detail": "", "started_at": self._now(), "finished_at": None}
        with writing(self._engine) as db:
            self._still_ours(db, change.app, change.environment, token)
            db.execute(t.schema_changes.update().where(t.schema_changes.c.id == change.id).values(begun))

    def change_finished(self, change_id: str, state: ChangeState, detail: str, output: str = "") -> None:
        """The word after it, with what the commands said."""
        ended = {"state": state, "detail": detail, "finished_at": self._now()}
        ended |= {"output": output[-KEPT:]} if output else {}
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(t.schema_changes.c.id == change_id).values(ended))

    def contract_arrived(self, release_id: str, environment: str, due_at: datetime) -> None:
        """The rollout of a contract's release has arrived: it is done then, unless somebody goes back before."""
        own = (t.schema_changes.c.release_id == release_id, t.schema_changes.c.environment == environment)
        waits = (t.schema_changes.c.kind == "contract", t.schema_changes.c.state == "waiting")
        with writing(self._engine) as db:
            db.execute(t.schema_changes.update().where(*own, *waits).values(due_at=due_at))

    def due_contracts(self, now: datetime) -> list[SchemaChange]:
        """Those whose time has come, and those that a dead run left half-way; the oldest first."""
        return self._changes(
            t.schema_changes.c.kind == "contract",
            t.schema_changes.c.state.in_(("waiting", "running")),
            t.schema_changes.c.due_at <= now,
        )

    def waiting_contracts(self, app: str, environment: str) -> list[SchemaChange]:
        """Those that are still to come, for a version that has arrived."""
        return self._changes(
            t.schema_changes.c.app == app,
            t.schema_changes.c.environment == environment,
            t.schema_changes.c.kind == "contract",
            t.schema_changes.c.state == "waiting",
            t.schema_changes.c.due_at.is_not(None),
        )

    def contracts_after(self, app: str, environment: str, revision: str | None) -> list[SchemaChange]:
        """Those of versions that came here after this one, which does not know of them; None: all. The newest first."""
        contracts = self._changes(
            t.schema_changes.c.app == app,
            t.schema_changes.c.environment == environment,
            t.schema_changes.c.kind == "contract",
        )
        came = {row["id"]: row["saved_at"] for row in self._saved(app, environment)}
        return [one for one in reversed(contracts) if revision is None or came[one.revision] > came[revision]]

    def changes_of(self, release_id: str) -> list[SchemaChange]:
        return self._changes(t.schema_changes.c.release_id == release_id)

    def _saved(self, app: str, environment: str) -> list[sa.RowMapping]:
        column = t.revisions.c
        return self._read(
            sa.select(column.id, column.saved_at).where(column.app == app, column.environment == environment)
        )

    def _changes(self, *wanted: sa.ColumnElement[bool]) -> list[SchemaChange]:
        asked = sa.select(t.schema_changes).where(*wanted).order_by(t.schema_changes.c.decided_at)
        return [record(SchemaChange, row) for row in self._read(asked)]
