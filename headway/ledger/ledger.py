"""The durable record of releases, rollouts, approvals and locks. Every write is one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from headway.ledger.approvals import Approvals
from headway.ledger.apps import Registrations
from headway.ledger.database import connect
from headway.ledger.deliveries import Inbox
from headway.ledger.previews import Previews
from headway.ledger.reported_statuses import Told
from headway.ledger.schema_changes import Changes

__all__ = ["Ledger"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger(Changes, Approvals, Registrations, Inbox, Previews, Told):
    """All of it, in one database."""

    @classmethod
    def open(cls, url: str, clock: Callable[[], datetime] = _utc_now) -> Ledger:
        """`sqlite:///PATH` or `postgresql+psycopg://...`, migrated when it is older. Raises ServiceUnavailable."""
        return cls(connect(url), clock)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
