"""Access: what can be done, the roles that were granted, and API tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.principal import Principal, Role

__all__ = ["GROUP", "SKEW", "Action", "Authority", "Grant", "Membership", "Scope", "Token", "admins"]

GROUP = "group:"  # prefix of a group, where users and groups are named together
SKEW = timedelta(minutes=5)
"""How far the clocks of hosts that share a ledger may differ: a token works for this much longer than it says."""


class Action(StrEnum):
    """What a principal wants to do. `needs` is the lowest role that may do it."""

    READ = "read"
    RELEASE = "release"
    ROLLBACK = "rollback"
    PROMOTE = "promote"
    APPROVE = "approve"
    ADMIN = "admin"

    @property
    def needs(self) -> Role:
        return _NEEDS[self]


_NEEDS = {
    Action.READ: Role.VIEWER,
    Action.RELEASE: Role.DEVELOPER,  # start, cancel; previews
    Action.ROLLBACK: Role.DEVELOPER,  # roll back, abort a rollout
    Action.PROMOTE: Role.APPROVER,  # continue a rollout against or without a verdict
    Action.APPROVE: Role.APPROVER,  # approve, reject, release in spite of a freeze, release without approval
    Action.ADMIN: Role.ADMIN,  # registrations, policies, roles, tokens of others, deletion
}


class Grant(Frozen):
    """A role of a user or group, for one app or for all."""

    subject: str = Field(min_length=1, description="name of a user, or `group:NAME`")
    role: Role
    app: str | None = Field(default=None, description="None: all apps")
    granted_at: datetime
    granted_by: str

    def covers(self, app: str | None) -> bool:
        """Whether it is for this app; None asks for all apps."""
        return self.app is None or self.app == app


class Membership(Frozen):
    """A user in a group: put there by an admin (`local`), or by the identity provider at the last sign-in (`oidc`)."""

    group: str
    member: str
    source: str


class Scope(Frozen):
    """What a token is limited to. No app means every app of its owner, no environment every environment."""

    actions: tuple[Action, ...] = Field(min_length=1)
    apps: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()

    def covers(self, action: Action, app: str | None, environment: str | None) -> bool:
        """Whether it has all of these; None asks for all apps, or all environments. To read needs no environment."""
        return (
            action in self.actions
            and (not self.apps or app in self.apps)
            and (not self.environments or action is Action.READ or environment in self.environments)
        )

    def __str__(self) -> str:
        environments = f" in {', '.join(self.environments)}" if self.environments else ""
        return f"{', '.join(self.actions)} of {', '.join(self.apps) or 'every app'}{environments}"


class Token(Frozen):
    """An API token. Its secret is shown once, when it is created, and is not stored."""

    name: str
    owner: str = Field(description="the user whose roles it has, within its scope")
    scope: Scope
    created_at: datetime
    expires_at: datetime | None = Field(description="None: never")
    last_used_at: datetime | None = Field(default=None, description="to within a minute")
    revoked_at: datetime | None = None
    revoked_by: str | None = None

    def ended(self, now: datetime) -> str | None:
        """Why it is not valid any more; None if it is valid."""
        if self.revoked_at is not None:
            return f"it was revoked by {self.revoked_by}"
        if self.expires_at is not None and now >= self.expires_at + SKEW:
            return f"it expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return None


class Authority(Frozen):
    """A principal, and everything that decides what it may do."""

    principal: Principal
    groups: tuple[str, ...] = Field(default=(), description="of the user, or of the owner of the token")
    token: Token | None = Field(default=None, description="the token, if the principal is one and it exists")
    grants: tuple[Grant, ...] = Field(default=(), description="of everybody: a refusal names who has the role")
    owner: str = Field(description="the OS user who owns HEADWAY_HOME: always an admin")


def admins(grants: Iterable[Grant], memberships: Collection[Membership]) -> set[str]:
    """Users who are admin of all apps by a grant. A group counts for the members that are known."""
    subjects = {grant.subject for grant in grants if grant.role is Role.ADMIN and grant.app is None}
    members = {one.member for one in memberships if f"{GROUP}{one.group}" in subjects}
    return {subject for subject in subjects if not subject.startswith(GROUP)} | members
