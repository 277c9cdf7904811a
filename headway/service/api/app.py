"""The ASGI app: health, webhooks and the API. What goes on for ever beside them has a process of its own."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.service.api import releases, webhooks
from headway.service.api.delivery_batcher import Intake
from headway.service.api.rate_limits import Limits
from headway.service.api.webhook_secrets import FRESH, Keys
from headway.service.controllers.runner import Rounds, for_ever
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system.paths import ledger_url

__all__ = ["app"]

AGAIN = 1.0  # seconds before what goes on beside us is started again when it has ended


@asynccontextmanager
async def watching(app: FastAPI) -> AsyncIterator[None]:
    app.state.checks = {}
    load_secret = connections().load_secret
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        checked = app.state.checks.__setitem__
        app.state.ledger, app.state.control, app.state.load_secret = ledger, control, load_secret
        app.state.limits = Limits()
        app.state.intake = Intake(ledger)
        app.state.keys = Keys(ledger, load_secret)
        app.state.rounds = Rounds(checked)
        with suppress(HeadwayError):
            await load_secret(releases.TOKEN, "/api")  # the first takes a second of imports: no delivery waits for them
        going = [
            asyncio.create_task(for_ever(checked, "keys", app.state.keys.look, FRESH)),
            asyncio.create_task(for_ever(checked, "rounds", app.state.rounds.keep_going, AGAIN)),
        ]
        gc.freeze()  # what was imported stays: looking through it for garbage would stop every request for 0.2 s
        yield
        for task in going:
            task.cancel()
        await asyncio.wait(going)


class Health(BaseModel):
    """Whether what goes on beside the requests does."""

    status: str = Field(description="`ok` or `degraded`")
    checks: dict[str, str] = Field(description="`ok`, or what is wrong")


async def health(request: Request) -> Health:
    """Whether Headway is well."""
    checks = request.app.state.checks
    return Health(status="ok" if set(checks.values()) <= {"ok"} else "degraded", checks=checks)


VERSION = importlib.metadata.version("headway")
app = FastAPI(title="Headway", version=VERSION, lifespan=watching, docs_url=None, redoc_url=None)
app.include_router(webhooks.router)
app.include_router(releases.router)
app.get("/health")(health)
