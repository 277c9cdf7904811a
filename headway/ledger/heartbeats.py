"""Heartbeats of flow runs: which process executes a run, and when it was last seen."""

from __future__ import annotations

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing
from headway.ledger.records import Heartbeat
from headway.system.processes import ProcessIdentity

__all__ = ["Heartbeats"]


class Heartbeats(Repository):
    """One row for each flow run that is executed now. A run that ends or is suspended removes its row."""

    def beat(self, flow_run_id: str, process: ProcessIdentity) -> None:
        """Record that this process executes the run now."""
        row = {**process.model_dump(), "beat_at": self._now()}
        with writing(self._engine) as db:
            known = db.execute(t.heartbeats.update().where(t.heartbeats.c.flow_run_id == flow_run_id).values(row))
            if not known.rowcount:
                db.execute(t.heartbeats.insert().values(row | {"flow_run_id": flow_run_id}))

    def stop(self, flow_run_id: str) -> None:
        with writing(self._engine) as db:
            db.execute(t.heartbeats.delete().where(t.heartbeats.c.flow_run_id == flow_run_id))

    def by_run(self) -> dict[str, Heartbeat]:
        """Heartbeats by flow run id."""
        now = self._now()
        return {
            row["flow_run_id"]: Heartbeat(
                process=ProcessIdentity(host=row["host"], boot=row["boot"], pid=row["pid"], created=row["created"]),
                age=(now - row["beat_at"]).total_seconds(),
            )
            for row in self._read(sa.select(t.heartbeats))
        }
