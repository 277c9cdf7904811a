"""Policies of apps: every version, with who set it and when."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from headway.config.app_policy import AppPolicy
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Repository, record
from headway.ledger.database import serialize, writing
from headway.ledger.records import PolicyRecord

__all__ = ["Policies"]


class Policies(Repository):
    """Rules that no commit can loosen. A policy stays when its app is no longer registered."""

    def set(self, app: str, policy: AppPolicy, *, by: str) -> PolicyRecord:
        """Set the policy of an app, instead of the one before, which stays on the record."""
        row: dict[str, Any] = {"app": app, "document": policy.model_dump(mode="json", exclude_unset=True)}
        with writing(self._engine) as db:
            serialize(db, f"policy {app}")
            last = db.scalar(sa.select(sa.func.max(t.policies.c.number)).where(t.policies.c.app == app)) or 0
            row |= {"number": last + 1, "set_at": self._now(), "set_by": by}
            db.execute(t.policies.insert().values(row))
            facts = {"version": row["number"], "policy": row["document"]}
            audit.append(db, self._now(), audit.Entry("policy.set", app, by, facts))
        return record(PolicyRecord, row)

    def get(self, app: str) -> PolicyRecord | None:
        """The policy that is valid; None if none was ever set."""
        return next(iter(self.versions(app)), None)

    def versions(self, app: str) -> list[PolicyRecord]:
        """Every version of the policy, the newest first."""
        newest = sa.select(t.policies).where(t.policies.c.app == app).order_by(t.policies.c.number.desc())
        return [record(PolicyRecord, row) for row in self._read(newest)]
