"""Roles of users and groups, and the local members of groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from headway.domain.access import Authority, Grant, Membership, admins
from headway.domain.errors import NotFound, UsageError
from headway.domain.principal import Principal, Role
from headway.ledger import audit
from headway.ledger import schema as t
from headway.ledger.base import Clock, Repository, new_id, record
from headway.ledger.database import serialize, writing
from headway.ledger.tokens import Tokens

__all__ = ["Grants"]


class Grants(Repository):
    """One role of a user or group per app. A row stays when the role has ended, with who gave and took it."""

    def __init__(self, engine: sa.Engine, clock: Clock, tokens: Tokens) -> None:
        super().__init__(engine, clock)
        self._tokens = tokens

    def grant(self, subject: str, role: Role, app: str | None, *, by: str) -> Grant:
        """Give a user or `group:NAME` this role, instead of the one it has for the app.

        Raises UsageError when nobody would be admin of all apps any more.
        """
        row: dict[str, Any] = {"id": new_id(), "subject": subject, "role": role, "app": app}
        row |= {"granted_at": self._now(), "granted_by": by}
        with self._keeping_an_admin() as db:
            self._end(db, by, t.grants.c.subject == subject, t.grants.c.app.is_not_distinct_from(app))
            db.execute(t.grants.insert().values(row))
            facts = {"role": str(role), "app": app}
            audit.append(db, self._now(), audit.Entry("role.granted", subject, by, facts))
        return record(Grant, row)

    def revoke(self, subject: str, app: str | None, *, by: str) -> None:
        """Take the role for an app, or the one for all apps. Raises NotFound, UsageError."""
        with self._keeping_an_admin() as db:
            own = (t.grants.c.subject == subject, t.grants.c.app.is_not_distinct_from(app))
            if not self._end(db, by, *own):
                raise NotFound(f"{subject} has no role for {app or 'all apps'}", "see headway role list")
            audit.append(db, self._now(), audit.Entry("role.revoked", subject, by, {"app": app}))

    def remove_user(self, name: str, *, by: str) -> None:
        """Take every role and membership of a user, revoke the user's tokens, and end the user's sessions.

        Another person may have the name afterwards. Raises NotFound, UsageError.
        """
        ended = {"revoked_at": self._now(), "revoked_by": by}
        own = (t.tokens.c.owner == name, t.tokens.c.revoked_at.is_(None))
        with self._keeping_an_admin() as db:
            changed = self._end(db, by, t.grants.c.subject == name)
            changed += db.execute(t.members.delete().where(t.members.c.member == name)).rowcount
            changed += db.execute(t.tokens.update().where(*own).values(ended)).rowcount
            changed += db.execute(t.sessions.delete().where(t.sessions.c.name == name)).rowcount
            changed += db.execute(t.identities.delete().where(t.identities.c.name == name)).rowcount
            if not changed:
                raise NotFound(f"{name} has no role, group, token or session", "see headway role list")
            audit.append(db, self._now(), audit.Entry("user.removed", name, by))

    def all(self) -> list[Grant]:
        """The roles that are valid, by subject and app."""
        with self._engine.connect() as db:
            return _grants(db)

    def add_member(self, group: str, member: str, *, by: str) -> None:
        """Put a user into a local group."""
        with writing(self._engine) as db:
            self._add(db, group, member, "local")
            audit.append(db, self._now(), audit.Entry("group.joined", group, by, {"member": member}))

    def remove_member(self, group: str, member: str, *, by: str) -> None:
        """Remove a user from a local group. Raises NotFound, UsageError."""
        own = (t.members.c.group == group, t.members.c.member == member, t.members.c.source == "local")
        with self._keeping_an_admin() as db:
            if not db.execute(t.members.delete().where(*own)).rowcount:
                raise NotFound(f"{member} is not in the local group {group}", "see headway role list")
            audit.append(db, self._now(), audit.Entry("group.left", group, by, {"member": member}))

    def record_claims(self, member: str, groups: Sequence[str]) -> None:
        """Record the groups that the identity provider named at a sign-in, instead of those of the last one."""
        own = (t.members.c.member == member, t.members.c.source == "oidc")
        named = sorted(set(groups))
        with writing(self._engine) as db:
            db.execute(t.members.delete().where(*own))
            for group in named:
                self._add(db, group, member, "oidc")
            audit.append(db, self._now(), audit.Entry("user.signed_in", member, member, {"groups": named}))

    def members(self) -> list[Membership]:
        """Every known membership, by group."""
        with self._engine.connect() as db:
            return _members(db)

    def authority(self, principal: Principal, owner: str) -> Authority:
        """What decides what a principal may do. `owner` is the OS user who owns HEADWAY_HOME."""
        token = self._tokens.find(principal.name) if principal.kind == "token" else None
        user = principal.name if principal.kind == "user" else token and token.owner
        groups = set(principal.groups) if principal.kind == "user" else set()
        with self._engine.connect() as db:
            groups |= set(db.scalars(sa.select(t.members.c.group).where(t.members.c.member == user)))
            grants = tuple(_grants(db))
        return Authority(principal=principal, groups=tuple(sorted(groups)), token=token, grants=grants, owner=owner)

    @contextmanager
    def _keeping_an_admin(self) -> Iterator[sa.Connection]:
        """A transaction that is refused when it takes the last grant of admin for all apps away."""
        with writing(self._engine) as db:
            serialize(db, "grants")
            before = admins(_grants(db), _members(db))
            yield db
            if before and not admins(_grants(db), _members(db)):
                raise UsageError(
                    f"nobody would be admin of all apps: {', '.join(sorted(before))} is the last",
                    "make another user admin first: headway role grant USER admin",
                )

    def _end(self, db: sa.Connection, by: str, *own: sa.ColumnElement[bool]) -> int:
        values = {"revoked_at": self._now(), "revoked_by": by}
        return db.execute(t.grants.update().where(t.grants.c.revoked_at.is_(None), *own).values(values)).rowcount

    def _add(self, db: sa.Connection, group: str, member: str, source: str) -> None:
        own = {"group": group, "member": member, "source": source}
        known = sa.select(t.members.c.group).filter_by(**own)
        if db.scalar(known) is None:
            db.execute(t.members.insert().values(own | {"since": self._now()}))


def _grants(db: sa.Connection) -> list[Grant]:
    valid = sa.select(t.grants).where(t.grants.c.revoked_at.is_(None))
    return [record(Grant, row) for row in db.execute(valid.order_by(t.grants.c.subject, t.grants.c.app)).mappings()]


def _members(db: sa.Connection) -> list[Membership]:
    rows = db.execute(sa.select(t.members).order_by(t.members.c.group, t.members.c.member)).mappings()
    return [record(Membership, row) for row in rows]
