"""Commands to a running rollout: promote, skip, abort."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.errors import NotFound
from headway.domain.plan import OperatorCommand
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository
from headway.ledger.database import writing
from headway.ledger.records import RolloutRecord
from headway.ledger.rollouts import Rollouts

__all__ = ["Commands"]


class Commands(Repository):
    """A queue of commands for each rollout."""

    def __init__(self, engine: sa.Engine, clock: Clock, rollouts: Rollouts) -> None:
        super().__init__(engine, clock)
        self._rollouts = rollouts

    def give(self, app: str, environment: str, command: OperatorCommand, *, via: str) -> RolloutRecord:
        """Add a command for the rollout that is running, at its current step. Raises NotFound when none is."""
        running = [one for one in self._rollouts.unfinished(app, environment) if one.kind == "release"]
        if not running:
            raise NotFound(f"{app} {environment}: no rollout is under way", f"see headway status {app}")
        rollout = running[-1]
        steps = self._rollouts.steps(rollout.id)
        command = command.model_copy(update={"position": steps[-1].position if steps else None})
        row = {"rollout_id": rollout.id, "order": command.model_dump(mode="json"), "via": via, "given_at": self._now()}
        with writing(self._engine) as db:
            db.execute(t.orders.insert().values(row))
            facts = {"revision": rollout.plan.new, "reason": command.reason, "via": via}
            subject = f"{app} {environment}"
            audit.append(db, self._now(), audit.Entry(f"rollout.{command.kind}", subject, command.by, facts))
        return rollout

    def take(self, rollout_id: str) -> OperatorCommand | None:
        """Return the oldest command that was not taken before, and mark it as taken."""
        pending = (t.orders.c.rollout_id == rollout_id, t.orders.c.taken_at.is_(None))
        row = self._read_one(sa.select(t.orders).where(*pending).order_by(t.orders.c.id).limit(1))
        if row is None:
            return None
        with writing(self._engine) as db:
            db.execute(t.orders.update().where(t.orders.c.id == row["id"]).values(taken_at=self._now()))
        return OperatorCommand.model_validate(row["order"])
