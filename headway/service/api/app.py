"""The ASGI app: webhooks, the HTTP API and health. The controllers run in a process of their own."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypedDict

from fastapi import FastAPI
from pydantic import BaseModel, Field

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.service.api import authorize, oidc_routes, pages, releases, sign_in, webhooks
from headway.service.api.authentication import Site
from headway.service.api.delivery_batcher import DeliveryBatcher
from headway.service.api.rate_limits import RateLimits
from headway.service.api.responses import LargeBodies
from headway.service.api.services import Services, ServicesDependency
from headway.service.api.webhook_secrets import WebhookSecrets
from headway.service.controllers import Controller
from headway.service.controllers.base import OK
from headway.service.controllers.process import ControllerProcess
from headway.service.controllers.runner import run
from headway.service.identity_provider import IdentityProvider
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system.os_user import home_owner
from headway.system.paths import ledger_url, make_home

__all__ = ["app"]

OLD_CHECKS = {"controllers": "rounds", "webhook_secrets": "keys"}
"""Checks that were renamed after 0.1.0. Both names are in the answer until 0.3.0."""


class _State(TypedDict):
    services: Services


@contextmanager
def _open_services() -> Iterator[tuple[Services, list[Controller]]]:
    """Create the services and the controllers of the API process."""
    checks: dict[str, str] = {}
    load_secret = connections().load_secret
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        secrets = WebhookSecrets(ledger, load_secret)
        process = ControllerProcess(checks.__setitem__)
        services = Services(
            ledger=ledger,
            owner=home_owner(make_home()),
            control=control,
            load_secret=load_secret,
            rate_limits=RateLimits(),
            large_bodies=LargeBodies(),
            delivery_batcher=DeliveryBatcher(ledger),
            webhook_secrets=secrets,
            deliveries_stored=process.deliveries_stored,
            site=Site.of_environment(),
            checks=checks,
            identity_provider=IdentityProvider.of_environment(),
        )
        yield services, [secrets, process]


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[_State]:
    with _open_services() as (services, controllers):
        with suppress(HeadwayError):
            await services.load_secret(releases.TOKEN, "/api")  # imports for a second: not during the first request
        tasks = [asyncio.create_task(run(controller, services.checks.__setitem__)) for controller in controllers]
        gc.freeze()  # imported modules stay: a full collection over them would stop every request for 0.2 s
        yield {"services": services}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class Health(BaseModel):
    """State of the controllers."""

    status: str = Field(description="`ok` or `degraded`")
    checks: dict[str, str] = Field(description="for each controller `ok`, or its last error")


async def health(services: ServicesDependency) -> Health:
    """Return the state of each background controller."""
    checks = dict(services.checks)
    checks |= {old: checks[name] for name, old in OLD_CHECKS.items() if name in checks}
    return Health(status=OK if set(checks.values()) <= {OK} else "degraded", checks=checks)


VERSION = importlib.metadata.version("headway")
app = FastAPI(title="Headway", version=VERSION, lifespan=_lifespan, docs_url=None, redoc_url=None)
app.include_router(webhooks.router)
app.include_router(releases.router)
app.include_router(authorize.router)
app.include_router(sign_in.router)
app.include_router(pages.router)
app.include_router(oidc_routes.router)
app.get("/health", summary="Health")(health)
