"""Verify: all checks of a commit, in parallel as far as their `needs` allow."""

from __future__ import annotations

import asyncio

from headway.config import Settings
from headway.domain.errors import HeadwayError
from headway.domain.source import CheckReport, Source
from tasks.checks import run_check
from tasks.release_record import ReleaseSession

__all__ = ["verify"]


async def verify(release: ReleaseSession, source: Source, settings: Settings) -> list[CheckReport]:
    """Run every check.

    After a failure the other checks finish, except those that need the failed one. Then its error is raised.
    """
    running: dict[str, asyncio.Task[CheckReport | HeadwayError]] = {}

    async def attempt(name: str) -> CheckReport | HeadwayError:
        check = settings.checks[name]
        needed = [await running[other] for other in check.needs]
        for outcome in needed:
            if isinstance(outcome, HeadwayError):
                release.skip_stage(name, f"needs {', '.join(check.needs)}")
                return outcome
        try:
            return await run_check.with_options(retries=check.retries)(release, source, name, check, wait_for=needed)
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
