"""Stages of a release, such as a check, the build, or the rollout to one environment."""

from __future__ import annotations

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing
from headway.ledger.records import StageRecord, StageState

__all__ = ["ALL_CHECKS", "Stages"]

ALL_CHECKS = "all checks"
"""Stage of a pull request or merge group that ends with its checks. No check can be called so: it has a space."""


class Stages(Repository):
    """Stages by release and name, in the order in which they first started."""

    def start(self, release_id: str, name: str, state: StageState = "running") -> None:
        """Record that a stage has started. A stage that starts again keeps its position."""
        own = (t.stages.c.release_id == release_id, t.stages.c.name == name)
        values = {"state": state, "detail": "", "started_at": self._now(), "finished_at": None}
        with writing(self._engine) as db:
            if not db.execute(t.stages.update().where(*own).values(values)).rowcount:
                last = db.scalar(sa.select(sa.func.max(t.stages.c.position)).where(t.stages.c.release_id == release_id))
                key = {"release_id": release_id, "name": name, "position": (last or 0) + 1}
                db.execute(t.stages.insert().values(key | values))

    def finish(self, release_id: str, name: str, state: StageState, detail: str) -> None:
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name)
                .values(state=state, detail=detail, finished_at=self._now())
            )

    def set_waiting(self, release_id: str, name: str, question: str) -> None:
        """Record what an unfinished stage asks a person; with an empty question it is running again."""
        with writing(self._engine) as db:
            db.execute(
                t.stages.update()
                .where(t.stages.c.release_id == release_id, t.stages.c.name == name, t.stages.c.finished_at.is_(None))
                .values(state="waiting" if question else "running", detail=question)
            )

    def by_release(self, release_id: str) -> list[StageRecord]:
        query = sa.select(t.stages).where(t.stages.c.release_id == release_id).order_by(t.stages.c.position)
        return [StageRecord(**row) for row in self._read(query)]
