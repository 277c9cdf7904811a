"""Base class of the ledger's repositories: the database, the clock, and rows as records."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from headway.domain.base import Frozen

__all__ = ["Clock", "Repository", "first", "new_id", "record", "utc_now"]

Record = TypeVar("Record", bound=Frozen)
Row = sa.RowMapping | Mapping[str, Any]
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Repository:
    """Queries and writes of one subject, in one database.

    `clock` returns the time in UTC. Leases are compared with it: the clocks of hosts that share a ledger must agree
    to within a fraction of a lease (tens of seconds).
    """

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._engine = engine
        self._now = clock

    def _read(self, query: sa.Select[Any]) -> list[sa.RowMapping]:
        with self._engine.connect() as db:
            return list(db.execute(query).mappings())

    def _read_one(self, query: sa.Select[Any]) -> sa.RowMapping | None:
        return next(iter(self._read(query)), None)


def first(db: sa.Connection, query: sa.Select[Any]) -> sa.RowMapping | None:
    """The first row of a query inside a transaction, or None."""
    return db.execute(query).mappings().first()


def record(kind: type[Record], row: Row) -> Record:
    """A row as a record of this type; columns that the record does not have are left out.

    A field has the name of its column, or its column as validation alias.
    """
    columns = (str(field.validation_alias or name) for name, field in kind.model_fields.items())
    return kind(**{column: row[column] for column in columns})


def new_id() -> str:
    return secrets.token_hex(8)
