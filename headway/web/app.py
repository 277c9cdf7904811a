"""The ASGI app: health, webhooks, and beside them the sweep, the dispatcher and whatever else goes on for ever."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from headway.control import Control
from headway.dispatch import Dispatcher
from headway.errors import HeadwayError
from headway.heads import Poller
from headway.home import home, ledger_url
from headway.ledger import Ledger
from headway.project import load_git_host, load_secret, load_target
from headway.reconciler import Reconciler
from headway.recovery import revive, sweep
from headway.reporting import Reporter
from headway.web import hooks, releases
from headway.web.intake import Intake
from headway.web.keys import FRESH, Keys
from headway.web.limits import Limits

__all__ = ["app"]

SWEEP = 2.0  # seconds between two sweeps
REVIVE = 10.0  # seconds between two looks whether what should run does
POLL = 300.0  # seconds between two looks whether a webhook was lost
PREVIEWS = 5.0  # seconds between two looks whether previews are as they should be
REPORT = 1.0  # seconds between two looks for what git hosts should be told
DISPATCH = 1.0  # seconds between two looks for deliveries that are to be tried again; new ones are told

log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def watching(app: FastAPI) -> AsyncIterator[None]:
    app.state.checks = {}
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        app.state.ledger, app.state.control, app.state.load_secret = ledger, control, load_secret
        app.state.limits = Limits()
        app.state.intake = Intake(ledger)
        app.state.keys = Keys(ledger, load_secret)
        app.state.dispatcher = Dispatcher(ledger, control, home() / "workspaces", load_git_host)
        reconciler = Reconciler(ledger, control, load_git_host, app.state.dispatcher.wake)

        async def sweep_once() -> list[str]:
            return await asyncio.to_thread(sweep, ledger, control)

        async def revive_once() -> list[str]:
            return await revive(ledger, load_target)

        rounds = [
            _for_ever(app, "sweep", sweep_once, SWEEP),
            _for_ever(app, "revive", revive_once, REVIVE),
            _for_ever(app, "keys", app.state.keys.look, FRESH),
            _for_ever(app, "reports", Reporter(ledger, control, load_git_host, load_target).round, REPORT),
            _for_ever(app, "poll", Poller(ledger, home() / "workspaces", app.state.dispatcher.wake).round, POLL),
            _for_ever(app, "previews", reconciler.round, PREVIEWS),
            _for_ever(app, "dispatch", app.state.dispatcher.round, DISPATCH, app.state.dispatcher.wake),
        ]
        going = [asyncio.create_task(each) for each in rounds]
        yield
        for task in going:
            task.cancel()
        await asyncio.wait(going)


async def _for_ever(
    app: FastAPI,
    name: str,
    round_: Callable[[], Awaitable[list[str]]],
    pause: float,
    wake: asyncio.Event | None = None,
) -> None:
    """Round after round; what goes wrong is in the log and on /health, and the next round tries again.

    A round begins `pause` seconds after the last, or when it is woken.
    """
    said: list[str] = []
    wake = wake or asyncio.Event()
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
        with suppress(TimeoutError):
            await asyncio.wait_for(wake.wait(), pause)


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
app.include_router(hooks.router)
app.include_router(releases.router)
app.get("/health")(health)
