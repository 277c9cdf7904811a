"""Headway's own page: is it well, and what is live where."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from headway.control import Control
from headway.errors import HeadwayError
from headway.home import ledger_url
from headway.ledger import Ledger
from headway.recovery import sweep

__all__ = ["app"]

SWEEP = 2.0  # seconds between two sweeps

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def sweeping(app: Starlette) -> AsyncIterator[None]:
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        app.state.swept = "never"
        sweeper = asyncio.create_task(_sweep_for_ever(app, ledger, control))
        yield
        sweeper.cancel()


async def _sweep_for_ever(app: Starlette, ledger: Ledger, control: Control) -> None:
    while True:
        try:
            for line in await asyncio.to_thread(sweep, ledger, control):
                log.info("%s", line)
            app.state.swept = "ok"
        except HeadwayError as error:
            # The server may be gone for a while; the next round tries again, and /health says so meanwhile.
            log.warning("sweep: %s", error)
            app.state.swept = error.what
        await asyncio.sleep(SWEEP)


async def health(request: Request) -> JSONResponse:
    swept = request.app.state.swept
    status = "ok" if swept in ("ok", "never") else "degraded"
    return JSONResponse({"status": status, "checks": {"sweep": swept}})


app = Starlette(routes=[Route("/health", health)], lifespan=sweeping)
