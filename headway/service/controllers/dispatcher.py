"""Start flow runs for the deliveries of git hosts.

Two dispatchers at once do no harm: the ledger settles each delivery once, and a run that is requested twice is one run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from headway.domain.errors import HeadwayError, NotFound
from headway.domain.ports import GitHost
from headway.ledger import AppRecord, DeliveryRecord, Ledger
from headway.service.controllers.base import Controller
from headway.service.controllers.merge_group_handler import MergeGroupHandler
from headway.service.controllers.pull_request_handler import PullRequestHandler
from headway.service.controllers.push_handler import PushHandler
from headway.service.controllers.trigger_handler import TriggerContext, TriggerHandler
from headway.service.prefect.client import Control

__all__ = ["HANDLERS", "Dispatcher", "dispatch"]

CONCURRENCY = 8  # apps of each kind of event at once

HANDLERS: Mapping[str, type[TriggerHandler]] = {
    "push": PushHandler,
    "pull_request": PullRequestHandler,
    "merge_group": MergeGroupHandler,
}
"""Kind of event -> its handler."""


class Dispatcher(Controller):
    """Dispatches the pushes and the pull requests of each app in separate tasks: a host that hangs delays no other."""

    name = "dispatch"
    interval = 1.0  # seconds; for deliveries that are due for a retry, new ones set `wake`

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        workspaces: Path,
        load_git_host: Callable[[str], Awaitable[GitHost]],
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._control = control
        self._workspaces = workspaces
        self._load_git_host = load_git_host
        self._tasks: dict[tuple[str, str], asyncio.Task[list[str]]] = {}
        self._failed: dict[tuple[str, str], BaseException] = {}  # errors of tasks, not raised yet
        self._slots = {kind: asyncio.Semaphore(CONCURRENCY) for kind in HANDLERS}

    async def reconcile(self) -> list[str]:
        """Start a task for what is due. Return a line for each delivery that was settled since the last call.

        A call without lines raises the error of a task that failed, if there is one.
        """
        due = await asyncio.to_thread(self._ledger.deliveries.due, list(self._tasks))
        app_and_kind = attrgetter("app", "event.kind")
        for key, group in groupby(sorted(due, key=app_and_kind), app_and_kind):
            self._tasks[key] = asyncio.create_task(self._dispatch(list(group)))
            self._tasks[key].add_done_callback(lambda _: self.wake.set())
        lines: list[str] = []
        for key in [key for key, task in self._tasks.items() if task.done()]:
            task = self._tasks.pop(key)
            if error := task.exception():
                self._failed[key] = error
            else:
                lines += task.result()
        if self._failed and not lines:
            raise self._failed.pop(next(iter(self._failed)))
        return lines

    async def _dispatch(self, due: Sequence[DeliveryRecord]) -> list[str]:
        async with self._slots[due[0].event.kind]:
            host = await self._git_host(due[0])
            return await asyncio.to_thread(dispatch, self._ledger, self._control, self._workspaces, due, host)

    async def _git_host(self, row: DeliveryRecord) -> GitHost | HeadwayError | None:
        if not HANDLERS[row.event.kind].needs_git_host:
            return None
        try:
            app = await asyncio.to_thread(self._ledger.apps.get, row.app)
            return await self._load_git_host(app.reports) if app.reports else None
        except HeadwayError as error:
            return error


def dispatch(
    ledger: Ledger,
    control: Control,
    workspaces: Path,
    due: Sequence[DeliveryRecord],
    git_host: GitHost | HeadwayError | None = None,
) -> list[str]:
    """Settle the due deliveries of one app and kind, and start flow runs. Returns log lines.

    `git_host` is where pull requests are looked up, or why it could not be loaded. Raises ServiceUnavailable when the
    Prefect server does not answer: the deliveries stay due.
    """
    kind = due[0].event.kind
    try:
        app = ledger.apps.get(due[0].app)
    except NotFound:
        return []  # its removal has settled the deliveries
    handler = HANDLERS[kind](TriggerContext(ledger, workspaces, app, git_host))
    subject = attrgetter("ref")
    waiting = sorted((row for row in due if row.state == "waiting"), key=subject)
    lines = [f"{app.name} {ref}: {handler.decide(list(rows))}" for ref, rows in groupby(waiting, subject)]
    identity = attrgetter("app", "event.kind", "state")
    starting = [row for row in ledger.deliveries.due() if identity(row) == (app.name, kind, "starting")]
    return lines + [f"{app.name} {row.ref}: {_start(ledger, control, app, handler, row)}" for row in starting]


def _start(ledger: Ledger, control: Control, app: AppRecord, handler: TriggerHandler, row: DeliveryRecord) -> str:
    """Start the run of a delivery. Repeating this, after a crash, finds the same run.

    The release is recorded here, so that a run that dies before it reads a file leaves a release with an error.
    """
    key = hashlib.sha256(f"{row.app} {row.delivery} {row.position}".encode()).hexdigest()
    start, sha = handler.flow_start(row), row.sha or ""
    run = control.start(start.deployment, start.parameters, idempotency_key=f"inbox-{key}")
    if start.release_of:
        release = ledger.releases.start(
            start.release_of,
            app.repo,
            sha,
            flow_run_id=run,
            requested_by=start.parameters["by"],
            preview=row.event.starts == "preview",
        )
        ledger.releases.update(release.id, sha=sha)
    ledger.deliveries.mark_started(row.id, run)
    return f"{sha[:7]}: {control.run_url(run)}"
