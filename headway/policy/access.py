"""Who may do what: the decision. Pure: the caller reads the authority from the ledger."""

from __future__ import annotations

from datetime import datetime

from headway.domain.access import GROUP, Action, Authority
from headway.domain.principal import Role
from headway.domain.refusal import Refusal

__all__ = ["able", "has_role", "may", "may_by_role", "role_of"]

SERVICE = Role.DEVELOPER  # services release and roll back; they never approve


def may(
    authority: Authority, action: Action, app: str | None, environment: str | None = None, *, now: datetime
) -> Refusal | None:
    """Why a principal may not do this; None if it may.

    `app` None asks for all apps, such as to register one. `environment` None asks for every environment of the app.
    """
    who, what = authority.principal, _described(action, app, environment)
    if who.kind == "token":
        token = authority.token
        ended = "there is no such token" if token is None else token.ended(now)
        if ended:
            return Refusal(f"{who} may not {what}: {ended}", "create another one: headway token create")
        if token and not token.scope.covers(action, app, environment):
            hint = "create a token with a wider scope: headway token create"
            return Refusal(f"{who} may not {what}: its scope is to {token.scope}", hint)
    has = role_of(authority, app)
    if has is not None and has.rank >= action.needs.rank:
        return None
    owner = f"{authority.token.owner}, who owns {who}," if authority.token else str(who)
    missing = f"that needs the role {action.needs}, not {has}" if has else f"that needs the role {action.needs}"
    return Refusal(f"{owner} may not {what}: {missing}", f"these may: {', '.join(able(authority, action.needs, app))}")


def may_by_role(
    authority: Authority, action: Action, app: str, environment: str | None = None, *, now: datetime
) -> Refusal | None:
    """As `may`, once a role is granted for the app or for all apps; before that, every user who is signed in may."""
    if authority.principal.kind == "user" and not any(grant.covers(app) for grant in authority.grants):
        return None
    return may(authority, action, app, environment, now=now)


def role_of(authority: Authority, app: str | None) -> Role | None:
    """The role of a principal for an app, or with None for all apps. A token has that of its owner."""
    principal = authority.principal
    if principal.kind == "service":
        return SERVICE
    name = principal.name if principal.kind == "user" else authority.token and authority.token.owner
    if name is None:
        return None
    if name == authority.owner:
        return Role.ADMIN
    subjects = {name, *(f"{GROUP}{group}" for group in authority.groups)}
    granted = [grant.role for grant in authority.grants if grant.subject in subjects and grant.covers(app)]
    return max(granted, key=lambda one: one.rank, default=None)


def has_role(authority: Authority) -> bool:
    """Whether a principal has a role for any app."""
    return any(role_of(authority, app) for app in {None, *(grant.app for grant in authority.grants)})


def able(authority: Authority, needed: Role, app: str | None) -> list[str]:
    """Users and groups who have the role, the owner first."""
    subjects = {one.subject for one in authority.grants if one.role.rank >= needed.rank and one.covers(app)}
    return [authority.owner, *sorted(subjects - {authority.owner})]


def _described(action: Action, app: str | None, environment: str | None) -> str:
    verb = "administer" if action is Action.ADMIN else action
    return f"{verb} {app or 'every app'}{f' in {environment}' if environment else ''}"
