"""Inputs of a release that are decided once: settings, artifact, launch specs, readiness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from headway.ledger import schema as t
from headway.ledger.base import Repository, first
from headway.ledger.database import writing

__all__ = ["BASE_SETTINGS", "SBOM", "SETTINGS", "ReleaseInputs"]

SETTINGS = "settings"
BASE_SETTINGS = "base settings"  # of the base branch, for a pull request
SBOM = "sbom"


class ReleaseInputs(Repository):
    """JSON documents by release and name. The first one that is stored under a name stays."""

    def get(self, release_id: str, name: str) -> dict[str, Any] | None:
        row = self._read_one(sa.select(t.release_inputs.c.value).where(*_own(release_id, name)))
        return dict(row["value"]) if row else None

    def fix(self, release_id: str, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Store the document unless there is one of this name. Returns the stored one."""
        with writing(self._engine) as db:
            known = first(db, sa.select(t.release_inputs.c.value).where(*_own(release_id, name)))
            if known:
                return dict(known["value"])
            db.execute(t.release_inputs.insert().values(release_id=release_id, name=name, value=dict(value)))
        return dict(value)


def _own(release_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return t.release_inputs.c.release_id == release_id, t.release_inputs.c.name == name
