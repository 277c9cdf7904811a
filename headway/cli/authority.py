"""What the person at the command line may do."""

from __future__ import annotations

from datetime import UTC, datetime

from headway.domain.access import Action
from headway.domain.errors import UsageError
from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.policy.access import may
from headway.system.os_user import home_owner, os_user
from headway.system.paths import make_home

__all__ = ["require"]


def require(ledger: Ledger, action: Action, app: str | None, environment: str | None = None) -> Principal:
    """The OS user, if they may do this; `app` None is for all apps. Raises UsageError."""
    who = os_user()
    authority = ledger.grants.authority(who, home_owner(make_home()))
    if refusal := may(authority, action, app, environment, now=datetime.now(UTC)):
        raise UsageError(refusal.what, refusal.hint)
    return who
