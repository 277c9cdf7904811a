"""Results of earlier releases: checks that passed, and coverage."""

from __future__ import annotations

import sqlalchemy as sa

from headway.domain.source import CheckReport, Coverage
from headway.ledger import schema as t
from headway.ledger.base import Repository, first
from headway.ledger.database import writing
from headway.ledger.records import KnownCheck

__all__ = ["Checks"]


class Checks(Repository):
    """A cache of check reports by the hash of their inputs, and the coverage of each release."""

    def passed(self, key: str) -> KnownCheck | None:
        """The report of the release in which a check with these inputs passed first, or None."""
        row = self._read_one(
            sa.select(t.checks.c.report, t.releases.c.app, t.releases.c.number)
            .join(t.releases, t.releases.c.id == t.checks.c.release_id)
            .where(t.checks.c.key == key)
        )
        return KnownCheck(release=f"{row['app']}#{row['number']}", report=CheckReport(**row["report"])) if row else None

    def save(self, key: str, release_id: str, report: CheckReport) -> None:
        """Save a report of a check that passed, unless one with the same inputs is saved already."""
        with writing(self._engine) as db:
            if not first(db, sa.select(t.checks.c.key).where(t.checks.c.key == key)):
                row = {"key": key, "release_id": release_id, "report": report.model_dump(mode="json")}
                db.execute(t.checks.insert().values(row))

    def save_coverage(self, release_id: str, check: str, coverage: Coverage) -> None:
        own = (t.coverages.c.release_id == release_id, t.coverages.c.check == check)
        with writing(self._engine) as db:
            db.execute(t.coverages.delete().where(*own))
            row = {"release_id": release_id, "check": check, "coverage": coverage.model_dump(mode="json")}
            db.execute(t.coverages.insert().values(row))

    def last_coverage(self, app: str, check: str) -> Coverage | None:
        """Coverage of the app's last release that succeeded, or None."""
        row = self._read_one(
            sa.select(t.coverages.c.coverage)
            .join(t.releases, t.releases.c.id == t.coverages.c.release_id)
            .where(t.releases.c.app == app, t.coverages.c.check == check, t.releases.c.state == "succeeded")
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return Coverage(**row["coverage"]) if row else None
