"""Headway's own page: is it well, and what is live where."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from headway.control import Control
from headway.errors import HeadwayError
from headway.home import ledger_url
from headway.ledger import Ledger
from headway.project import load_target
from headway.recovery import revive, sweep

__all__ = ["app"]

SWEEP = 2.0  # seconds between two sweeps
REVIVE = 10.0  # seconds between two looks whether what should run does

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def watching(app: Starlette) -> AsyncIterator[None]:
    app.state.checks = {}
    with Ledger.open(ledger_url()) as ledger, Control() as control:

        async def sweep_once() -> list[str]:
            return await asyncio.to_thread(sweep, ledger, control)

        async def revive_once() -> list[str]:
            return await revive(ledger, load_target)

        going = [
            asyncio.create_task(_for_ever(app, "sweep", sweep_once, SWEEP)),
            asyncio.create_task(_for_ever(app, "revive", revive_once, REVIVE)),
        ]
        yield
        for task in going:
            task.cancel()
        await asyncio.wait(going)


async def _for_ever(app: Starlette, name: str, round_: Callable[[], Awaitable[list[str]]], pause: float) -> None:
    """Round after round; what goes wrong is in the log and on /health, and the next round tries again."""
    said: list[str] = []
    while True:
        try:
            lines = await round_()
            for line in lines:
                if line not in said:  # what goes on for many rounds is said once
                    log.info("%s", line)
            said = lines
            app.state.checks[name] = "ok"
        except HeadwayError as error:
            log.warning("%s: %s", name, error)
            app.state.checks[name] = error.what
        except Exception as error:
            log.exception("%s", name)
            app.state.checks[name] = f"a bug in Headway: {type(error).__name__}: {error}"
        await asyncio.sleep(pause)


async def health(request: Request) -> JSONResponse:
    checks = request.app.state.checks
    status = "ok" if set(checks.values()) <= {"ok"} else "degraded"
    return JSONResponse({"status": status, "checks": checks})


app = Starlette(routes=[Route("/health", health)], lifespan=watching)
