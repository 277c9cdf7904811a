"""Sessions of people in a browser, and the one-time codes of the links that begin them.

Only hashes of the secrets are stored. SHA-256 without a salt is enough: a secret has 256 random bits, so that there is
nothing to guess (NIST SP 800-63B, 5.1.2.2, on look-up secrets).
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import sqlalchemy as sa

from headway.domain.principal import Principal
from headway.ledger import schema as t
from headway.ledger.base import Repository, first
from headway.ledger.database import writing

__all__ = ["ABSOLUTE", "CODE", "IDLE", "Sessions"]

IDLE = timedelta(hours=12)  # without a request, after which a session has expired
ABSOLUTE = timedelta(days=7)  # after which a session has expired in any case
CODE = timedelta(minutes=10)  # in which a link can be used
TOUCH = timedelta(minutes=1)  # the time of the last request is written at most this often


class Sessions(Repository):
    """Sessions and codes. Expired ones are removed when a new one begins."""

    def offer(self, person: Principal) -> str:
        """Return the code of a link that begins a session of this person, once and within `CODE`."""
        code = secrets.token_urlsafe(32)
        row = {"principal": person.model_dump(mode="json"), "expires_at": self._now() + CODE}
        with writing(self._engine) as db:
            db.execute(t.sign_in_codes.delete().where(t.sign_in_codes.c.expires_at <= self._now()))
            db.execute(t.sign_in_codes.insert().values(row | {"code_hash": _hash(code)}))
        return code

    def redeem(self, code: str) -> str | None:
        """Use a code up, and begin its session. None when it is unknown, used, or expired."""
        known = t.sign_in_codes.c.code_hash == _hash(code)
        with writing(self._engine) as db:
            row = first(db, sa.select(t.sign_in_codes).where(known, t.sign_in_codes.c.expires_at > self._now()))
            used = db.execute(t.sign_in_codes.delete().where(known)).rowcount
        return self.begin(Principal.model_validate(row["principal"])) if row and used else None

    def begin(self, person: Principal) -> str:
        """Begin a session; returns its secret."""
        secret, now = secrets.token_urlsafe(32), self._now()
        row = {"principal": person.model_dump(mode="json"), "name": person.name, "began_at": now, "seen_at": now}
        with writing(self._engine) as db:
            db.execute(t.sessions.delete().where(sa.not_(self._valid)))
            db.execute(t.sessions.insert().values(row | {"secret_hash": _hash(secret)}))
        return secret

    def person(self, secret: str) -> Principal | None:
        """Whose session it is. None when there is none, or it has ended or expired."""
        own = t.sessions.c.secret_hash == _hash(secret)
        row = self._read_one(sa.select(t.sessions).where(own, self._valid))
        if row is None:
            return None
        if row["seen_at"] < self._now() - TOUCH:
            with writing(self._engine) as db:
                db.execute(t.sessions.update().where(own).values(seen_at=self._now()))
        return Principal.model_validate(row["principal"])

    def end(self, secret: str) -> None:
        """Sign out. Does nothing when there is no such session."""
        with writing(self._engine) as db:
            db.execute(t.sessions.delete().where(t.sessions.c.secret_hash == _hash(secret)))

    @property
    def _valid(self) -> sa.ColumnElement[bool]:
        now = self._now()
        return sa.and_(t.sessions.c.seen_at > now - IDLE, t.sessions.c.began_at > now - ABSOLUTE)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
