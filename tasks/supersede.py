"""Supersede: a newer push ends the checks and waits of an older release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from headway.domain.errors import HeadwayError, Superseded
from headway.domain.events import NOTHING
from tasks.release_record import ReleaseSession

__all__ = ["require_newest", "require_nothing_newer_live", "while_newest"]

POLL = 0.5  # seconds


@asynccontextmanager
async def while_newest(release: ReleaseSession) -> AsyncIterator[None]:
    """Cancel the block when a newer commit is pushed. Raises Superseded.

    Not for code that changes an environment: a push must never interrupt that.
    """
    task = asyncio.current_task()
    assert task is not None
    require_newest(release)
    superseded = False

    async def watch() -> None:
        nonlocal superseded
        while not superseded:
            await asyncio.sleep(POLL)
            with suppress(HeadwayError):  # a busy ledger: ask again
                superseded = await asyncio.to_thread(_is_superseded, release)
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if superseded and task.uncancel() == 0:
            require_newest(release)
        raise
    finally:
        watching.cancel()


def require_newest(release: ReleaseSession) -> None:
    """Raise Superseded when a newer commit was pushed, or the pull request was closed."""
    newer = release.ledger.deliveries.successor(release.record.flow_run_id or "")
    if newer is None:
        return
    if newer.sha == NOTHING:
        raise Superseded(f"pull request {newer.ref} was closed", "open it again, and it starts again")
    run = newer.flow_run_id and release.ledger.releases.by_run(newer.flow_run_id)
    by = run.name if run else f"the run {newer.flow_run_id}" if newer.flow_run_id else "a run that is about to start"
    raise Superseded(f"superseded by {by}: {(newer.sha or '')[:7]} was pushed", "the newer commit contains this one")


def require_nothing_newer_live(release: ReleaseSession, environment: str) -> None:
    """Raise Superseded when a newer release is live: an older one must not replace it after a late approval."""
    if newer := release.ledger.approvals.newer_live(release.record.id, environment):
        hint = f"it is newer, and live; to go back: headway rollback {release.record.app} {environment}"
        raise Superseded(f"{environment}: superseded by {newer.name}", hint)


def _is_superseded(release: ReleaseSession) -> bool:
    return release.ledger.deliveries.successor(release.record.flow_run_id or "") is not None
