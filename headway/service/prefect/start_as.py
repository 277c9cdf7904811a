"""Start a flow run for an authenticated principal, whom the flow finds in the ledger."""

from __future__ import annotations

from typing import Any

from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.ledger.prefect_requests import creator_headers
from headway.service.prefect.client import Control

__all__ = ["start_as"]


def start_as(
    principal: Principal,
    ledger: Ledger,
    control: Control,
    deployment: str,
    parameters: dict[str, Any],
    *,
    idempotency_key: str | None = None,
) -> str:
    """Start a run of a deployment for this principal, and return its id. Raises what `Control.start` does."""
    path = f"/api/deployments/{deployment}/create_flow_run"
    request = ledger.prefect_requests.record(principal, "POST", path, None)
    return control.start(
        deployment,
        parameters | {"by": str(principal)},
        idempotency_key=idempotency_key,
        creator=creator_headers(request, principal),
    )
