"""Sign-ins with an identity provider: those that have begun, and which of its users has which name."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import sqlalchemy as sa
from pydantic import Field

from headway.domain.base import Frozen
from headway.ledger import schema as t
from headway.ledger.base import Repository, first, record
from headway.ledger.database import serialize, writing

__all__ = ["BEGUN", "SignIn", "SignIns"]

BEGUN = timedelta(minutes=10)  # in which a person has to sign in at the identity provider


class SignIn(Frozen):
    """What belongs to one sign-in."""

    nonce: str = Field(description="comes back in the ID token")
    verifier: str = Field(description="proves to the identity provider who began it (PKCE, RFC 7636)")
    page: str = Field(description="path to open afterwards")


class SignIns(Repository):
    """A sign-in is used once, by the browser that began it."""

    def begin(self, page: str) -> tuple[SignIn, str, str]:
        """Returns it with its `state`, and a secret for a cookie of the browser. Removes expired ones."""
        begun = SignIn(nonce=secrets.token_urlsafe(32), verifier=secrets.token_urlsafe(48), page=page)
        state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        row = begun.model_dump() | {"secret_hash": _hash(state, browser), "expires_at": self._now() + BEGUN}
        with writing(self._engine) as db:
            db.execute(t.sign_ins.delete().where(t.sign_ins.c.expires_at <= self._now()))
            db.execute(t.sign_ins.insert().values(row))
        return begun, state, browser

    def use(self, state: str, browser: str) -> SignIn | None:
        """Use a sign-in up. None when this browser did not begin it, or it was used, or it expired."""
        own = t.sign_ins.c.secret_hash == _hash(state, browser)
        with writing(self._engine) as db:
            row = first(db, sa.select(t.sign_ins).where(own, t.sign_ins.c.expires_at > self._now()))
            used = db.execute(t.sign_ins.delete().where(own)).rowcount
        return record(SignIn, row) if row and used else None

    def recognise(self, name: str, issuer: str, subject: str) -> bool:
        """Whether the name is this user's of the identity provider. The first who has a name keeps it.

        Subjects are never given to another user (OpenID Connect Core, 5.7); names and e-mail addresses are.
        """
        own = (t.identities.c.name == name, t.identities.c.issuer == issuer)
        row = {"name": name, "issuer": issuer, "subject": subject, "since": self._now()}
        with writing(self._engine) as db:
            serialize(db, "identities")
            known = db.scalar(sa.select(t.identities.c.subject).where(*own))
            if known is None:
                db.execute(t.identities.insert().values(row))
        return known in (None, subject)


def _hash(state: str, browser: str) -> str:
    return hashlib.sha256(f"{state} {browser}".encode()).hexdigest()
