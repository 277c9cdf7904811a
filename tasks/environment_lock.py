"""The lock of an environment: waiting for it, holding it, keeping it alive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prefect import get_run_logger

from blocks import loading
from headway.domain.base import Frozen
from headway.domain.errors import EnvironmentLocked, HeadwayError, LockLost, Superseded
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import Ledger, Lock
from headway.rollout.availability import answered
from headway.rollout.own_requests import OwnRequests
from tasks.release_record import ReleaseSession
from tasks.supersede import require_newest

__all__ = ["EnvironmentSession", "hold", "hold_for_release"]

LEASE = 30.0  # seconds; the lock of a holder that died is free after this long
RENEWALS = 6  # within a lease: some may fail
POLL = 0.5  # seconds
DEADLINE = 4 * 3600.0  # seconds of waiting; longer than any rollout's progress deadline


class EnvironmentSession:
    """One environment of an app while its lock is held, passed to the steps that change it.

    It has slots and no `__dict__`: Prefect then shows `<EnvironmentSession>` as a parameter, and stores nothing of it.
    """

    __slots__ = ("_targets", "app", "environment", "ledger", "lock", "own")

    def __init__(self, ledger: Ledger, lock: Lock) -> None:
        self.ledger = ledger
        self.lock = lock
        self.app = lock.app
        self.environment = lock.environment
        self.own = OwnRequests()
        self._targets: dict[str, Target] = {}

    def __str__(self) -> str:
        return f"{self.app} {self.environment}"

    async def target(self, slug: str) -> Target:
        """Load the target `type/name` once, with this session's fencing token. Raises NotFound, TargetError."""
        if slug not in self._targets:
            target = await loading.load_target(slug)
            await answered(
                lambda: asyncio.to_thread(target.claim, self.app, self.lock.token), on_line=get_run_logger().info
            )
            self._targets[slug] = target
        return self._targets[slug]

    def revision(self, text: str) -> tuple[Revision, LaunchSpec]:
        """A revision of this environment by a prefix of its id or commit. Raises NotFound."""
        return self.ledger.revisions.find(self.app, text, environment=self.environment)


class _Request(Frozen):
    """Who wants the lock of which environment, for which revision."""

    app: str
    environment: str
    holder: str
    revision: str


@asynccontextmanager
async def hold(
    ledger: Ledger, app: str, environment: str, *, holder: str, revision: str, patient: bool = False
) -> AsyncIterator[EnvironmentSession]:
    """Hold the lock of an environment for something other than a release.

    Raises EnvironmentLocked when another holder has it, if `patient` only after four hours.
    """
    request = _Request(app=app, environment=environment, holder=holder, revision=revision)
    lock = await _acquire(ledger, request, wait=patient)
    async with _renewed(ledger, lock) as session:
        yield session


@asynccontextmanager
async def hold_for_release(
    release: ReleaseSession, environment: str, revision: str
) -> AsyncIterator[EnvironmentSession]:
    """Hold the lock of an environment for a release, which queues for it.

    Raises Superseded when a newer release of the app is in the queue, or a newer commit was pushed; EnvironmentLocked
    after four hours.
    """
    ledger, record = release.ledger, release.record
    request = _Request(app=record.app, environment=environment, holder=record.name, revision=revision)
    ledger.queue.enter(record.id, record.app, environment)
    try:
        lock = await _acquire(ledger, request, wait=True, check=lambda: _require_first(release, environment))
    finally:
        ledger.queue.leave(record.id, record.app, environment)
    async with _renewed(ledger, lock) as session:
        yield session


def _require_first(release: ReleaseSession, environment: str) -> None:
    """Raise Superseded when a newer release waits for the same environment, or a newer commit was pushed."""
    require_newest(release)
    record = release.record
    if newer := release.ledger.queue.newer_release(record.id, record.app, environment):
        raise Superseded(f"{environment}: superseded by {newer.name}", f"it contains what {record.name} has, or more")


async def _acquire(ledger: Ledger, request: _Request, *, wait: bool, check: Callable[[], None] = lambda: None) -> Lock:
    """Acquire the lock; `check` is called before every attempt, and may raise."""
    deadline = time.monotonic() + DEADLINE
    logged = ""
    where = request.app, request.environment
    while True:
        check()
        lock = ledger.locks.acquire(*where, holder=request.holder, revision=request.revision, lease=LEASE)
        if lock is not None:
            return lock
        by = ledger.locks.holder(*where)
        held = f"{request.environment} is held by {by.holder} for {by.revision}" if by else ""
        held = held or f"{request.environment} is being let go"
        if not wait or time.monotonic() > deadline:
            raise EnvironmentLocked(held, "cancel that run, which rolls the environment back; or wait for it")
        if held != logged:
            get_run_logger().info("waiting: %s", held)
            logged = held
        await asyncio.sleep(POLL)


@asynccontextmanager
async def _renewed(ledger: Ledger, lock: Lock) -> AsyncIterator[EnvironmentSession]:
    """A session whose lock is renewed until the block ends, and released then."""
    renewal = asyncio.create_task(_keep_alive(ledger, lock))
    try:
        yield EnvironmentSession(ledger, lock)
    finally:
        renewal.cancel()
        ledger.locks.release(lock)


async def _keep_alive(ledger: Ledger, lock: Lock) -> None:
    """Renew the lease until cancelled.

    A ledger that cannot be written is tried again: there is time until the lease expires. After a lost lock the next
    write to the journal raises LockLost.
    """
    while True:
        await asyncio.sleep(LEASE / RENEWALS)
        try:
            await asyncio.to_thread(ledger.locks.renew, lock)
        except LockLost as lost:
            get_run_logger().error("%s", lost)
            return
        except HeadwayError as error:
            get_run_logger().warning("the lock is not renewed yet: %s", error)
