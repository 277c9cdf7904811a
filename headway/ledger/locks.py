"""Locks of environments, with a lease and a fencing token."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from headway.domain.errors import LockLost
from headway.ledger import schema as t
from headway.ledger.base import Repository, first
from headway.ledger.database import serialize, writing
from headway.ledger.records import Lock, LockRecord

__all__ = ["Locks"]


class Locks(Repository):
    """One lock per environment of an app."""

    def acquire(
        self, app: str, environment: str, *, holder: str, revision: str, lease: float, above: int = 0
    ) -> Lock | None:
        """Acquire the lock for `lease` seconds; None while another holder's lease has not expired.

        The token is higher than `above` and than every token of this environment before it. Whoever still acts with
        an older token is refused (M. Kleppmann, How to do distributed locking, 2016).
        """
        now = self._now()
        own = (t.locks.c.app == app, t.locks.c.environment == environment)
        with writing(self._engine) as db:
            serialize(db, f"{app}/{environment}")
            row = first(db, sa.select(t.locks).where(*own))
            if row and row["holder"] and row["expires_at"] > now:
                return None
            token = max(row["token"] if row else 0, above) + 1
            values = {
                "holder": holder,
                "revision": revision,
                "token": token,
                "acquired_at": now,
                "expires_at": now + timedelta(seconds=lease),
            }
            if row:
                db.execute(t.locks.update().where(*own).values(values))
            else:
                db.execute(t.locks.insert().values({"app": app, "environment": environment} | values))
        return Lock(app=app, environment=environment, holder=holder, token=token, lease=lease)

    def renew(self, lock: Lock) -> None:
        """Extend the lease from now. Raises LockLost."""
        with writing(self._engine) as db:
            self.require(db, lock.app, lock.environment, lock.token)
            own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment)
            db.execute(t.locks.update().where(*own).values(expires_at=self._now() + timedelta(seconds=lock.lease)))

    def release(self, lock: Lock) -> None:
        """Release the lock, unless another holder has taken it over."""
        own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment, t.locks.c.token == lock.token)
        with writing(self._engine) as db:
            db.execute(t.locks.update().where(*own).values(holder=None, expires_at=None))

    def revoke(self, holder: str) -> None:
        """Release all locks of a holder whose run has died. Its tokens become invalid, in case it is still alive."""
        with writing(self._engine) as db:
            db.execute(
                t.locks.update().where(t.locks.c.holder == holder).values(holder=None, token=t.locks.c.token + 1)
            )

    def holder(self, app: str, environment: str) -> LockRecord | None:
        row = self._read_one(
            sa.select(t.locks).where(
                t.locks.c.app == app, t.locks.c.environment == environment, t.locks.c.holder.is_not(None)
            )
        )
        return LockRecord(**row, expired=row["expires_at"] <= self._now()) if row else None

    def require(self, db: sa.Connection, app: str, environment: str, token: int) -> None:
        """Check inside a transaction that `token` is current, and keep it so until the transaction ends.

        Raises LockLost.
        """
        query = sa.select(t.locks).where(t.locks.c.app == app, t.locks.c.environment == environment).with_for_update()
        row = first(db, query)
        if row is None or row["token"] != token or row["holder"] is None:
            by = row["holder"] if row and row["holder"] else "nobody"
            raise LockLost(
                f"{app} {environment}: the lock expired and is held by {by} now",
                "this run changed nothing more; the new holder continues from the live state",
            )
