"""Who requested a flow run: a person who started it, or a service of Headway."""

from __future__ import annotations

from prefect.context import FlowRunContext

from headway.domain.principal import Principal
from headway.ledger import Ledger

__all__ = ["requested_by", "requester"]


def requester(ledger: Ledger) -> Principal | None:
    """The principal who started this flow run; None when a service, a schedule or an automation did."""
    context = FlowRunContext.get()
    created_by = context.flow_run.created_by if context and context.flow_run else None
    return ledger.prefect_requests.creator(created_by.id) if created_by and created_by.id else None


def requested_by(ledger: Ledger, named: str) -> str:
    """The name for the record: of the person who started the run, whatever the run's parameter `by` says."""
    person = requester(ledger)
    return str(person) if person else named
