"""Who requested a flow run: a person who started it, or a service of Headway."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect.context import FlowRunContext

from headway.domain.access import Action
from headway.domain.errors import UsageError
from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.policy.access import may_by_role
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["requested_by", "requester", "require"]


def requester(ledger: Ledger) -> Principal | None:
    """The principal who started this flow run; None when a service, a schedule or an automation did."""
    context = FlowRunContext.get()
    created_by = context.flow_run.created_by if context and context.flow_run else None
    return ledger.prefect_requests.creator(created_by.id) if created_by and created_by.id else None


def require(ledger: Ledger, action: Action, app: str, environment: str | None = None) -> None:
    """Raise UsageError when the person who started this run may not do this to the app.

    Services start runs of their own; what they may is decided before.
    """
    if person := requester(ledger):
        authority = ledger.grants.authority(person, home_owner(home()))
        if refusal := may_by_role(authority, action, app, environment, now=datetime.now(UTC)):
            raise UsageError(refusal.what, refusal.hint)


def requested_by(ledger: Ledger, named: str) -> str:
    """The name for the record: of the person who started the run, whatever the run's parameter `by` says."""
    person = requester(ledger)
    return str(person) if person else named
