"""What all parts of the ledger share: the database, the clock, and how rows become records."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from headway.domain.base import Frozen

__all__ = ["Book", "new_id", "one", "record"]

Record = TypeVar("Record", bound=Frozen)
Row = sa.RowMapping | Mapping[str, Any]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Book:
    """One database. `clock` gives the time in UTC: leases are compared with it, so hosts that share a ledger must
    agree on the time to within a fraction of a lease (tens of seconds)."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime] = _utc_now) -> None:
        self._engine = engine
        self._now = clock

    def _read(self, asked: sa.Select[Any]) -> list[sa.RowMapping]:
        with self._engine.connect() as db:
            return list(db.execute(asked).mappings())

    def _read_one(self, asked: sa.Select[Any]) -> sa.RowMapping | None:
        return next(iter(self._read(asked)), None)


def one(db: sa.Connection, asked: sa.Select[Any]) -> sa.RowMapping | None:
    return db.execute(asked).mappings().first()


def record(kind: type[Record], row: Row) -> Record:
    return kind(**{name: row[name] for name in kind.model_fields})


def new_id() -> str:
    return secrets.token_hex(8)
