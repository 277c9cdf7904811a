"""Readings: raw measurements of a rollout, kept so that each verdict can be replayed."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.measurements import Measurements
from headway.ledger import schema as t
from headway.ledger.base import Repository
from headway.ledger.database import writing

__all__ = ["Readings"]


class Readings(Repository):
    """Readings by rollout, in the order in which they were taken."""

    def add(self, rollout_id: str, position: int, reading: Measurements) -> None:
        """Save a reading taken during the step at `position`."""
        row = {"rollout_id": rollout_id, "position": position, "reading": reading.model_dump(mode="json")}
        with writing(self._engine) as db:
            db.execute(t.measurements.insert().values(row))

    def last(self, rollout_id: str) -> Measurements | None:
        """The newest reading only: a rollback must not wait for thousands of others to load."""
        query = sa.select(t.measurements).where(t.measurements.c.rollout_id == rollout_id)
        row = self._read_one(query.order_by(t.measurements.c.id.desc()).limit(1))
        return Measurements.model_validate(row["reading"]) if row else None

    def by_rollout(self, rollout_id: str) -> list[tuple[int, Measurements]]:
        """All readings, each with the position of its step."""
        query = sa.select(t.measurements).where(t.measurements.c.rollout_id == rollout_id).order_by(t.measurements.c.id)
        return [(row["position"], Measurements(**row["reading"])) for row in self._read(query)]
