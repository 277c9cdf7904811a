"""What the routes of the API use, created once at the start and passed to each route by FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

from fastapi import Depends, Request

from headway.ledger import Ledger
from headway.service.api.authentication import Site
from headway.service.api.delivery_batcher import DeliveryBatcher
from headway.service.api.rate_limits import RateLimits
from headway.service.api.responses import LargeBodies
from headway.service.api.webhook_secrets import WebhookSecrets
from headway.service.identity_provider import IdentityProvider
from headway.service.prefect.client import Control

__all__ = ["Services", "ServicesDependency", "current_services"]


@dataclass(frozen=True)
class Services:
    """Shared by all requests."""

    ledger: Ledger
    owner: str
    """The OS user who owns HEADWAY_HOME: always an admin."""
    control: Control
    load_secret: Callable[[str, str], Awaitable[str]]
    rate_limits: RateLimits
    large_bodies: LargeBodies
    delivery_batcher: DeliveryBatcher
    webhook_secrets: WebhookSecrets
    deliveries_stored: asyncio.Event
    """Set it when the dispatcher has a new delivery."""
    site: Site
    """The origins under which people may sign in."""
    checks: dict[str, str]
    """Name of a controller -> `ok`, or what is wrong."""
    identity_provider: IdentityProvider | None = None


async def current_services(request: Request) -> Services:
    """The services that the lifespan of the app has created."""
    return cast("Services", request.state.services)


ServicesDependency: TypeAlias = Annotated[Services, Depends(current_services)]
