"""Lint to tests: side by side, but for what `needs` puts in order."""

from __future__ import annotations

import asyncio

from headway.config import Settings
from headway.domain.errors import HeadwayError
from headway.domain.source import CheckReport, Source
from headway.ledger import ReleaseRecord
from tasks.checks import run_check
from tasks.release_record import skip_stage

__all__ = ["verify"]


async def verify(record: ReleaseRecord, source: Source, settings: Settings) -> list[CheckReport]:
    """Run every check.

    One that fails lets the others finish and starts none that needs it; then its error is raised.
    """
    running: dict[str, asyncio.Task[CheckReport | HeadwayError]] = {}

    async def attempt(name: str) -> CheckReport | HeadwayError:
        check = settings.checks[name]
        needed = [await running[other] for other in check.needs]
        for outcome in needed:
            if isinstance(outcome, HeadwayError):
                skip_stage(record, name, f"needs {', '.join(check.needs)}")
                return outcome
        try:
            return await run_check.with_options(retries=check.retries)(record, source, name, check, wait_for=needed)
        except HeadwayError as failed:
            return failed

    async with asyncio.TaskGroup() as group:
        for name in settings.checks:
            running[name] = group.create_task(attempt(name))
    outcomes = [task.result() for task in running.values()]
    for outcome in outcomes:
        if isinstance(outcome, HeadwayError):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, CheckReport)]
