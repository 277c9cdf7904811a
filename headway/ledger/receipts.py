"""Signed receipts of releases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import Field

from headway.domain.base import Frozen
from headway.ledger import schema as t
from headway.ledger.base import Repository, record
from headway.ledger.database import writing

__all__ = ["ENDED", "Receipt", "Receipts"]

ENDED = ""  # `environment` of the receipt at the end of a release


class Receipt(Frozen):
    """The receipt of a release for one environment."""

    release_id: str
    environment: str = Field(description="empty: at the end of the release")
    app: str
    digest: str = Field(description="of the artifact")
    signed_at: datetime
    envelope: dict[str, Any] = Field(description="DSSE envelope around an in-toto statement")


class Receipts(Repository):
    """Receipts, one for each release and environment. They are signed: whoever reads one must verify it."""

    def save(self, release_id: str, app: str, environment: str, digest: str, envelope: Mapping[str, Any]) -> Receipt:
        """Save a receipt, instead of an earlier one of the same release and environment."""
        own = (t.receipts.c.release_id == release_id, t.receipts.c.environment == environment)
        row = {"app": app, "digest": digest, "signed_at": self._now(), "envelope": dict(envelope)}
        row |= {"release_id": release_id, "environment": environment}
        with writing(self._engine) as db:
            db.execute(t.receipts.delete().where(*own))
            db.execute(t.receipts.insert().values(row))
        return Receipt.model_validate(row)

    def by_release(self, release_id: str) -> list[Receipt]:
        """The receipts of a release, the oldest first."""
        return self._select(t.receipts.c.release_id == release_id)

    def by_digest(self, digest: str) -> list[Receipt]:
        """The receipts of an artifact, of whatever app, the oldest first."""
        return self._select(t.receipts.c.digest == digest)

    def newest(self, app: str, environment: str, digest: str) -> Receipt | None:
        """The newest receipt of this artifact for an environment of the app."""
        column = t.receipts.c
        own = (column.app == app, column.environment == environment, column.digest == digest)
        return next(iter(reversed(self._select(*own))), None)

    def required(self, app: str, environment: str) -> str | None:
        """What the newest revision of an environment says that a launch requires."""
        own = (t.revisions.c.app == app, t.revisions.c.environment == environment)
        query = sa.select(t.revisions.c.spec).where(*own).order_by(t.revisions.c.saved_at.desc()).limit(1)
        row = self._read_one(query)
        return row["spec"].get("require") if row else None

    def _select(self, *wanted: sa.ColumnElement[bool]) -> list[Receipt]:
        query = sa.select(t.receipts).where(*wanted).order_by(t.receipts.c.signed_at)
        return [record(Receipt, row) for row in self._read(query)]
