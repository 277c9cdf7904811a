"""Who may change an environment: locks with a lease and a fencing token, and the queue before them."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from headway.domain.errors import LockLost
from headway.ledger import schema as t
from headway.ledger.base import one, record
from headway.ledger.database import one_at_a_time, writing
from headway.ledger.records import OPEN, Lock, LockRecord, ReleaseRecord
from headway.ledger.releases import Releases

__all__ = ["Locks"]


class Locks(Releases):
    """One writer an environment."""

    def acquire(
        self, app: str, environment: str, *, holder: str, revision: str, lease: float, above: int = 0
    ) -> Lock | None:
        """Become the one writer for `lease` seconds; None while somebody else is whose lease has not run out.

        The token is higher than `above` and any given before for this environment, whoever takes over: whatever still
        acts with an older one is refused (M. Kleppmann, How to do distributed locking, 2016).
        """
        now = self._now()
        own = (t.locks.c.app == app, t.locks.c.environment == environment)
        with writing(self._engine) as db:
            one_at_a_time(db, f"{app}/{environment}")
            row = one(db, sa.select(t.locks).where(*own))
            if row and row["holder"] and row["expires_at"] > now:
                return None
            token = max(row["token"] if row else 0, above) + 1
            held = {
                "holder": holder,
                "revision": revision,
                "token": token,
                "acquired_at": now,
                "expires_at": now + timedelta(seconds=lease),
            }
            if row:
                db.execute(t.locks.update().where(*own).values(held))
            else:
                db.execute(t.locks.insert().values({"app": app, "environment": environment} | held))
        return Lock(app=app, environment=environment, holder=holder, token=token, lease=lease)

    def renew(self, lock: Lock) -> None:
        """Another lease from now. Raises LockLost."""
        with writing(self._engine) as db:
            self._still_ours(db, lock.app, lock.environment, lock.token)
            own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment)
            db.execute(t.locks.update().where(*own).values(expires_at=self._now() + timedelta(seconds=lock.lease)))

    def release_lock(self, lock: Lock) -> None:
        """Let go. A lock that somebody else took over is theirs, and stays."""
        own = (t.locks.c.app == lock.app, t.locks.c.environment == lock.environment, t.locks.c.token == lock.token)
        with writing(self._engine) as db:
            db.execute(t.locks.update().where(*own).values(holder=None, expires_at=None))

    def free_locks(self, holder: str) -> None:
        """Let go of all that a holder has whose run is known to be dead. Its token stays used: it cannot come back."""
        with writing(self._engine) as db:
            db.execute(
                t.locks.update().where(t.locks.c.holder == holder).values(holder=None, token=t.locks.c.token + 1)
            )

    def lock_holder(self, app: str, environment: str) -> LockRecord | None:
        row = self._read_one(
            sa.select(t.locks).where(
                t.locks.c.app == app, t.locks.c.environment == environment, t.locks.c.holder.is_not(None)
            )
        )
        return LockRecord(**row, expired=row["expires_at"] <= self._now()) if row else None

    def enqueue(self, release_id: str, app: str, environment: str) -> None:
        self.dequeue(release_id, app, environment)
        with writing(self._engine) as db:
            db.execute(t.queue.insert().values(release_id=release_id, app=app, environment=environment))

    def dequeue(self, release_id: str, app: str, environment: str) -> None:
        own = (t.queue.c.release_id == release_id, t.queue.c.app == app, t.queue.c.environment == environment)
        with writing(self._engine) as db:
            db.execute(t.queue.delete().where(*own))

    def superseded_by(self, release_id: str, app: str, environment: str) -> ReleaseRecord | None:
        """The newest release that waits for the same environment, when it is newer than this one."""
        row = self._read_one(
            sa.select(t.releases)
            .join(t.queue, t.queue.c.release_id == t.releases.c.id)
            .where(t.queue.c.app == app, t.queue.c.environment == environment, t.releases.c.state.in_(OPEN))
            .where(t.releases.c.number > self.release(release_id).number)
            .order_by(t.releases.c.number.desc())
            .limit(1)
        )
        return record(ReleaseRecord, row) if row else None

    def _still_ours(self, db: sa.Connection, app: str, environment: str, token: int) -> None:
        asked = sa.select(t.locks).where(t.locks.c.app == app, t.locks.c.environment == environment).with_for_update()
        row = one(db, asked)
        if row is None or row["token"] != token or row["holder"] is None:
            by = row["holder"] if row and row["holder"] else "nobody"
            raise LockLost(
                f"{app} {environment}: our lock ran out, it is held by {by} now",
                "nothing more was changed by this run; the new holder goes on from what is live",
            )
