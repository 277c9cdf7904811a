"""API tokens: created once, known by their hash, with a scope and an end."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa

from headway.domain.access import Scope, Token
from headway.domain.errors import NotFound, UsageError
from headway.domain.principal import Principal
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, record
from headway.ledger.database import serialize, writing

__all__ = ["Tokens"]

PREFIX = "headway_"  # says in a log or a file what it is
BYTES = 32
USED = timedelta(minutes=1)  # the last use is written at most this often


class Tokens(Repository):
    """API tokens. A name is used once: the records of releases name the token."""

    def create(self, name: str, *, owner: Principal, scope: Scope, expires_at: datetime | None) -> tuple[Token, str]:
        """Create a token. Returns it and its secret, which cannot be read again.

        Raises UsageError when the name has been used, or the owner is not a user.
        """
        if owner.kind != "user":
            raise UsageError(f"{owner} cannot own a token", "sign in as a user to create one")
        secret = PREFIX + secrets.token_urlsafe(BYTES)
        with writing(self._engine) as db:
            serialize(db, f"token {name}")
            if first(db, sa.select(t.tokens).where(t.tokens.c.name == name)):
                raise UsageError(
                    f"a token {name} was created before", "choose another name: the records of its releases name it"
                )
            row = {"name": name, "owner": owner.name, "scope": scope.model_dump(mode="json"), "digest": _digest(secret)}
            db.execute(t.tokens.insert().values(row | {"created_at": self._now(), "expires_at": expires_at}))
            facts = {"scope": row["scope"], "expires_at": expires_at}
            audit.append(db, self._now(), audit.Entry("token.created", name, str(owner), facts))
        return self.get(name), secret

    def authenticate(self, secret: str, now: datetime) -> Principal | None:
        """The token that has this secret, as a principal; None if there is none, or it is revoked or has expired."""
        row = self._read_one(sa.select(t.tokens).where(t.tokens.c.digest == _digest(secret)))
        if row is None:
            return None
        token = record(Token, row)
        if token.ended(now):
            return None
        if token.last_used_at is None or now - token.last_used_at >= USED:
            with writing(self._engine) as db:
                db.execute(t.tokens.update().where(t.tokens.c.name == token.name).values(last_used_at=now))
        return Principal(kind="token", name=token.name)

    def revoke(self, name: str, *, by: str) -> Token:
        """End a token now; one that is revoked stays as it is. Raises NotFound."""
        valid = (t.tokens.c.name == name, t.tokens.c.revoked_at.is_(None))
        with writing(self._engine) as db:
            if db.execute(t.tokens.update().where(*valid).values(revoked_at=self._now(), revoked_by=by)).rowcount:
                audit.append(db, self._now(), audit.Entry("token.revoked", name, by))
        return self.get(name)

    def find(self, name: str) -> Token | None:
        row = self._read_one(sa.select(t.tokens).where(t.tokens.c.name == name))
        return record(Token, row) if row else None

    def get(self, name: str) -> Token:
        """Raises NotFound."""
        token = self.find(name)
        if token is None:
            raise NotFound(f"there is no token {name}", "see headway token list")
        return token

    def all(self) -> list[Token]:
        """Every token, those that ended included, by name."""
        return [record(Token, row) for row in self._read(sa.select(t.tokens).order_by(t.tokens.c.name))]


def _digest(secret: str) -> str:
    """The hash that is stored. 256 random bits cannot be guessed, so that a slow hash with a salt would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
