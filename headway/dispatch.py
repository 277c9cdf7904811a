"""From what git hosts sent to runs of flows.

A delivery is a hint, and may be late, doubled, out of order or a replay: what is released is the commit that the ref
names when we ask the repository. Two that dispatch at once do no harm: the ledger settles each delivery once, and a run
that was asked for twice is one run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from headway import source, triggers
from headway.control import Control
from headway.errors import NotFound, SettingsError, SourceError
from headway.events import PushEvent
from headway.heads import settings_at
from headway.ledger import AppRecord, DeliveryRecord, Ledger
from headway.settings import FILE_NAME, Settings

__all__ = ["Dispatcher", "dispatch"]

AT_ONCE = 8  # apps whose repositories are asked side by side
FETCH = 60.0  # seconds for a repository to answer
TRIES = 12
BURST = timedelta(seconds=2)  # a push that comes so soon after one that was started waits for those behind it
EARLY = 4  # tries until a commit that the repository does not have is taken for one that it has no more
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds before the next try; the last stands for the rest


class Dispatcher:
    """Dispatches each app's deliveries in a task of its own: a host that hangs keeps no other waiting."""

    def __init__(self, ledger: Ledger, control: Control, workspaces: Path) -> None:
        self._ledger = ledger
        self._control = control
        self._workspaces = workspaces
        self._going: dict[str, asyncio.Task[list[str]]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.wake = asyncio.Event()
        """Set when there may be something to do."""

    async def round(self) -> list[str]:
        """Begin with what is due; returns a line for each delivery that was settled since the last round."""
        self.wake.clear()
        due = await asyncio.to_thread(self._ledger.due_deliveries, list(self._going))
        for app, group in groupby(sorted(due, key=attrgetter("app", "id")), attrgetter("app")):
            self._going[app] = asyncio.create_task(self._dispatch(list(group)))
            self._going[app].add_done_callback(lambda _: self.wake.set())
        ended = [app for app, task in self._going.items() if task.done()]
        return [line for task in [self._going.pop(app) for app in ended] for line in task.result()]

    async def _dispatch(self, due: Sequence[DeliveryRecord]) -> list[str]:
        async with self._slots:
            return await asyncio.to_thread(dispatch, self._ledger, self._control, self._workspaces, due)


def dispatch(ledger: Ledger, control: Control, workspaces: Path, due: Sequence[DeliveryRecord]) -> list[str]:
    """Settle deliveries of one app, and start what they ask for. Raises ServiceUnavailable: all of it is due still."""
    try:
        app = ledger.registered_app(due[0].app)
    except NotFound:
        return []  # whoever took it away has settled what was due
    said: list[str] = []
    by_ref = attrgetter("ref")
    for ref, group in groupby(sorted((one for one in due if one.state == "waiting"), key=by_ref), by_ref):
        rows = list(group)
        if isinstance(rows[0].event, PushEvent):
            said.append(f"{app.name} {ref}: {_push(ledger, workspaces, app, ref, rows)}")
        else:
            said.append(f"{app.name} {ref}: {_ignore(ledger, rows, 'pull requests start nothing')}")
    starting = (row for row in ledger.due_deliveries() if row.app == app.name and row.state == "starting")
    return said + [f"{app.name} {row.ref}: {_start(ledger, control, app, row)}" for row in starting]


def _ignore(ledger: Ledger, rows: Sequence[DeliveryRecord], reason: str) -> str:
    ledger.settle([row.id for row in rows], "ignored", reason)
    return f"nothing starts: {reason}"


def _push(ledger: Ledger, workspaces: Path, app: AppRecord, ref: str, rows: Sequence[DeliveryRecord]) -> str:
    """Every push of one ref that waits, together: only what the ref names now matters."""
    before = ledger.latest_start(app.name, ref)
    try:
        tip = source.fetch_tip(app.repo, ref, workspaces, timeout=FETCH)
        if tip is None:
            return _ignore(ledger, rows, f"{ref} is there no more")
        unknown = source.unknown(tip.mirror, {_after(row) for row in rows if row.tries < EARLY})
        early = [row for row in rows if row.tries < EARLY and _after(row) in unknown]
        if early:
            # Hosts tell before all their copies know; and what was pushed away by force never comes.
            return _later(ledger, early, f"{app.repo} has no {_after(early[0])[:7]} yet")
        old = before.sha if before else _before(rows[0])
        reason = _why_not(app, ref, tip, old)
    except SourceError as error:
        return _later(ledger, rows, error.what)
    ids = [row.id for row in rows]
    if before and before.sha != tip.sha and max(row.due_at for row in rows) < before.due_at + BURST:
        ledger.postpone(ids, before.due_at + BURST)
        return f"{tip.sha[:7]} waits a moment: there may be more"
    if before and before.sha == tip.sha:
        ledger.settle(ids, "duplicate", f"{tip.sha[:7]} was started before")
        return f"{tip.sha[:7]} was started before"
    if reason:
        return _ignore(ledger, rows, f"{tip.sha[:7]}: {reason}")
    named = [row.id for row in rows if _after(row) == tip.sha]
    ledger.settle_start(ids, named[0] if named else ids[-1], app.name, ref, tip.sha)
    return f"{tip.sha[:7]} is the newest of {len(rows)}"


def _after(row: DeliveryRecord) -> str:
    assert isinstance(row.event, PushEvent)
    return row.event.after


def _before(row: DeliveryRecord) -> str | None:
    assert isinstance(row.event, PushEvent)
    return row.event.before


def _why_not(app: AppRecord, ref: str, tip: source.Tip, old: str | None) -> str:
    try:
        known = settings_at(tip, tip.sha)
    except SettingsError:
        known = _settings_before(app, tip, old)
    if known.app != app.name:
        return f"its {FILE_NAME} is that of {known.app}, and the repository is registered as {app.name}"
    changed = source.changed_paths(tip.mirror, old, tip.sha)
    return triggers.why_not(ref, known, changed, source.message_of(tip.mirror, tip.sha))


def _settings_before(app: AppRecord, tip: source.Tip, old: str | None) -> Settings:
    """What was there before says which branch is released: a release of it shows what is wrong now."""
    try:
        return settings_at(tip, old or tip.sha)
    except SettingsError:
        return Settings(app=app.name)


def _later(ledger: Ledger, rows: Sequence[DeliveryRecord], why: str) -> str:
    ledger.settle([row.id for row in rows if row.tries + 1 >= TRIES], "failed", f"{why} ({TRIES} tries)")
    tries = max(row.tries for row in rows)
    ledger.try_again([row.id for row in rows], why, PAUSES[min(tries, len(PAUSES) - 1)])
    return why


def _start(ledger: Ledger, control: Control, app: AppRecord, row: DeliveryRecord) -> str:
    """Whoever comes here again, after a crash, gets the same run.

    Its release is entered here, so that one whose run dies before it has read a file is known, and told why.
    """
    key = hashlib.sha256(f"{row.app} {row.delivery} {row.position}".encode()).hexdigest()
    by = f"{row.event.by or 'somebody'} at {app.host}"
    asked = {"repo": app.repo, "ref": row.sha, "by": by}
    run = control.start("release/main", asked, idempotency_key=f"inbox-{key}")
    release = ledger.start_release(app.name, app.repo, row.sha or "", flow_run_id=run, requested_by=by)
    ledger.update_release(release.id, sha=row.sha)
    ledger.started(row.id, run)
    return f"{(row.sha or '')[:7]}: {control.run_url(run)}"
