"""From what git hosts sent to runs of flows.

A delivery is a hint, and may be late, doubled, out of order or a replay: what is released is the commit that the ref
names when we ask the repository, and whether a pull request is open its host says, where it can be asked. Two that
dispatch at once do no harm: the ledger settles each delivery once, and a run that was asked for twice is one run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from headway.config import FILE_NAME, Settings
from headway.domain.errors import GitHostError, HeadwayError, NotFound, SettingsError, SourceError, UsageError
from headway.domain.events import NOTHING
from headway.domain.git import PullRequest
from headway.domain.ports import GitHost
from headway.ledger import AppRecord, DeliveryRecord, Ledger
from headway.policy import previews, trigger_rules
from headway.scm import git
from headway.scm.branch_head import FETCH_TIMEOUT, settings_at
from headway.scm.webhooks import PullRequestEvent, PushEvent
from headway.service.prefect.client import Control

__all__ = ["Dispatcher", "dispatch"]

AT_ONCE = 8  # apps whose repositories are asked side by side
TRIES = 12
BURST = timedelta(seconds=2)  # a push that comes so soon after one that was started waits for those behind it
EARLY = 4  # tries until a commit that the repository does not have is taken for one that it has no more
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds before the next try; the last stands for the rest


class Dispatcher:
    """Dispatches each app's pushes, and each app's pull requests, in a task of their own: a host that hangs keeps no
    other waiting, and what is asked about pull requests keeps no push waiting.
    """

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        workspaces: Path,
        load_git_host: Callable[[str], Awaitable[GitHost]],
    ) -> None:
        self._ledger = ledger
        self._control = control
        self._workspaces = workspaces
        self._load_git_host = load_git_host
        self._going: dict[tuple[str, str], asyncio.Task[list[str]]] = {}
        self._slots = {kind: asyncio.Semaphore(AT_ONCE) for kind in ("push", "pull_request")}
        self.wake = asyncio.Event()
        """Set when there may be something to do."""

    async def round(self) -> list[str]:
        """Begin with what is due; returns a line for each delivery that was settled since the last round."""
        self.wake.clear()
        due = await asyncio.to_thread(self._ledger.deliveries.due, list(self._going))
        apart = attrgetter("app", "event.kind")
        for which, group in groupby(sorted(due, key=apart), apart):
            self._going[which] = asyncio.create_task(self._dispatch(list(group)))
            self._going[which].add_done_callback(lambda _: self.wake.set())
        ended = [which for which, task in self._going.items() if task.done()]
        return [line for task in [self._going.pop(which) for which in ended] for line in task.result()]

    async def _dispatch(self, due: Sequence[DeliveryRecord]) -> list[str]:
        async with self._slots[due[0].event.kind]:
            host = await self._host(due)
            return await asyncio.to_thread(dispatch, self._ledger, self._control, self._workspaces, due, host)

    async def _host(self, due: Sequence[DeliveryRecord]) -> GitHost | HeadwayError | None:
        """Who is asked about pull requests: nobody, when nobody is named."""
        try:
            app = await asyncio.to_thread(self._ledger.apps.get, due[0].app)
            asked = app.reports if any(isinstance(one.event, PullRequestEvent) for one in due) else None
            return await self._load_git_host(asked) if asked else None
        except HeadwayError as error:
            return error


def dispatch(
    ledger: Ledger,
    control: Control,
    workspaces: Path,
    due: Sequence[DeliveryRecord],
    host: GitHost | HeadwayError | None = None,
) -> list[str]:
    """Settle deliveries of one app and kind, and start what they ask for.

    Raises ServiceUnavailable: all of it is due still.

    `host` says how pull requests are; an error is why it cannot be asked.
    """
    try:
        app = ledger.apps.get(due[0].app)
    except NotFound:
        return []  # whoever took it away has settled what was due
    said: list[str] = []
    by_ref = attrgetter("ref")
    for ref, group in groupby(sorted((one for one in due if one.state == "waiting"), key=by_ref), by_ref):
        rows = list(group)
        if isinstance(rows[0].event, PushEvent):
            said.append(f"{app.name} {ref}: {_push(ledger, workspaces, app, ref, rows)}")
        else:
            said.append(f"{app.name} {ref}: {_pull(ledger, workspaces, app, host, rows)}")
    ours = attrgetter("app", "event.kind", "state")
    starting = (row for row in ledger.deliveries.due() if ours(row) == (app.name, due[0].event.kind, "starting"))
    return said + [f"{app.name} {row.ref}: {_start(ledger, control, app, row)}" for row in starting]


def _ignore(ledger: Ledger, rows: Sequence[DeliveryRecord], reason: str) -> str:
    ledger.deliveries.settle([row.id for row in rows], "ignored", reason)
    return f"nothing starts: {reason}"


def _push(ledger: Ledger, workspaces: Path, app: AppRecord, ref: str, rows: Sequence[DeliveryRecord]) -> str:
    """Every push of one ref that waits, together: only what the ref names now matters."""
    before = ledger.deliveries.latest_start(app.name, ref)
    try:
        tip = git.fetch_tip(app.repo, ref, workspaces, timeout=FETCH_TIMEOUT)
        if tip is None:
            return _ignore(ledger, rows, f"{ref} is there no more")
        unknown = git.unknown(tip.mirror, {_after(row) for row in rows if row.tries < EARLY})
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
        ledger.deliveries.postpone(ids, before.due_at + BURST)
        return f"{tip.sha[:7]} waits a moment: there may be more"
    if before and before.sha == tip.sha:
        ledger.deliveries.settle(ids, "duplicate", f"{tip.sha[:7]} was started before")
        return f"{tip.sha[:7]} was started before"
    if reason:
        return _ignore(ledger, rows, f"{tip.sha[:7]}: {reason}")
    named = [row.id for row in rows if _after(row) == tip.sha]
    ledger.deliveries.claim_start(ids, named[0] if named else ids[-1], app.name, ref, tip.sha)
    return f"{tip.sha[:7]} is the newest of {len(rows)}"


def _pull(
    ledger: Ledger,
    workspaces: Path,
    app: AppRecord,
    host: GitHost | HeadwayError | None,
    rows: Sequence[DeliveryRecord],
) -> str:
    """Every event of one pull request that waits, together: only how it is now matters."""
    event = rows[-1].event
    assert isinstance(event, PullRequestEvent)
    try:
        if isinstance(host, HeadwayError):
            raise host
        asked = Asked(event, host.pull_request(app.path, event.number) if host else None)
        if host and asked.now is None and event.open:
            raise GitHostError(f"{app.host} knows no pull request {event.number}", "may its token read them?")
        if not asked.open:
            return _close(ledger, app, event, rows)
        if asked.out_of_reach:
            return _ignore(ledger, rows, f"its commits are in a fork that {app.host} keeps to itself")
        tip = git.fetch_tip(app.repo, event.ref, workspaces, timeout=FETCH_TIMEOUT)
        base = git.fetch_tip(app.repo, f"refs/heads/{asked.base}", workspaces, timeout=FETCH_TIMEOUT)
        early = [row for row in rows if row.tries < EARLY]
        if early and (tip is None or not tip.sha.startswith(asked.head or "")):
            return _later(ledger, early, f"{app.repo} has no {(asked.head or event.ref)[:7]} yet")
        if tip is None or base is None:
            return _ignore(ledger, rows, f"{asked.base if tip else event.ref} is there no more")
        reason = _why_no_preview(app, asked, base, tip)
    except HeadwayError as error:  # of the host, or of the repository
        return _later(ledger, rows, error.what)
    return _open(ledger, app, rows, asked, tip.sha, reason)


def _open(ledger: Ledger, app: AppRecord, rows: Sequence[DeliveryRecord], asked: Asked, sha: str, reason: str) -> str:
    ref, ids = asked.event.about, [row.id for row in rows]
    name = previews.name(app.name, asked.event.number)
    before, known = ledger.deliveries.latest_start(app.name, ref), ledger.previews.get(name)
    if before and before.sha == sha and known and known.stands and not asked.event.again:
        ledger.deliveries.settle(ids, "duplicate", f"{sha[:7]} was started before")
        return f"{sha[:7]} was started before"
    if before and max(row.due_at for row in rows) < before.due_at + BURST:
        ledger.deliveries.postpone(ids, before.due_at + BURST)
        return f"{sha[:7]} waits a moment: there may be more"
    if not reason:
        try:
            ledger.previews.open(name, of=app.name, number=asked.event.number, head=sha, fork=asked.fork)
        except UsageError as error:
            reason = error.what
    if reason:
        return _ignore(ledger, rows, f"{sha[:7]}: {reason}")
    chosen = next((row for row in rows if sha.startswith(_head(row) or NOTHING)), rows[-1])
    decided = chosen.event.model_copy(update={"base": asked.base, "fork": asked.fork})
    ledger.deliveries.claim_start(ids, chosen.id, app.name, ref, sha, again=True, event=decided)
    return f"{sha[:7]} is the newest of {len(rows)}"


def _close(ledger: Ledger, app: AppRecord, event: PullRequestEvent, rows: Sequence[DeliveryRecord]) -> str:
    """Whatever goes on for it is followed by its end."""
    ref, ids = event.about, [row.id for row in rows]
    before, known = (
        ledger.deliveries.latest_start(app.name, ref),
        ledger.previews.get(previews.name(app.name, event.number)),
    )
    if before is None and not (known and known.stands):
        return _ignore(ledger, rows, "it is closed, and nothing was ever started for it")
    if before and before.sha == NOTHING:
        ledger.deliveries.settle(ids, "duplicate", "it is closed, and was before")
        return "it is closed, and was before"
    ledger.deliveries.claim_start(ids, ids[-1], app.name, ref, NOTHING)
    return "it is closed"


class Asked(NamedTuple):
    """How a pull request is: as its host says now, or, where that does not say, as it said last."""

    event: PullRequestEvent
    now: PullRequest | None

    @property
    def open(self) -> bool:
        return self.now.open if self.now else self.event.open

    @property
    def head(self) -> str | None:
        return self.now.head if self.now else self.event.head

    @property
    def base(self) -> str:
        return self.now.base if self.now else self.event.base

    @property
    def fork(self) -> bool:
        """Who says so is believed, be it the event or the host."""
        return self.event.fork or (self.now is not None and self.now.fork)

    @property
    def out_of_reach(self) -> bool:
        """Whether its ref is a branch of somebody else's repository: one of ours that is called so is another."""
        return self.fork and self.event.ref.startswith("refs/heads/")


def _why_no_preview(app: AppRecord, asked: Asked, base: git.Tip, tip: git.Tip) -> str:
    """What a fork says in its headway.yaml does not count."""
    try:
        known = settings_at(base if asked.fork else tip, base.sha if asked.fork else tip.sha)
    except SettingsError:
        known = _settings_before(app, base, base.sha)  # a run of it shows what is wrong
    if known.app != app.name:
        return f"its {FILE_NAME} is that of {known.app}, and the repository is registered as {app.name}"
    old = git.fork_point(tip.mirror, base.sha, tip.sha)
    changed = git.changed_paths(tip.mirror, old, tip.sha) if known.on.paths else None  # anybody's may be without end
    return trigger_rules.why_no_preview(asked.base, known, changed, git.message_of(tip.mirror, tip.sha))


def _head(row: DeliveryRecord) -> str | None:
    return row.event.head if isinstance(row.event, PullRequestEvent) else None


def _after(row: DeliveryRecord) -> str:
    assert isinstance(row.event, PushEvent)
    return row.event.after


def _before(row: DeliveryRecord) -> str | None:
    assert isinstance(row.event, PushEvent)
    return row.event.before


def _why_not(app: AppRecord, ref: str, tip: git.Tip, old: str | None) -> str:
    try:
        known = settings_at(tip, tip.sha)
    except SettingsError:
        known = _settings_before(app, tip, old)
    if known.app != app.name:
        return f"its {FILE_NAME} is that of {known.app}, and the repository is registered as {app.name}"
    changed = git.changed_paths(tip.mirror, old, tip.sha) if known.on.paths else None
    return trigger_rules.why_not(ref, known, changed, git.message_of(tip.mirror, tip.sha))


def _settings_before(app: AppRecord, tip: git.Tip, old: str | None) -> Settings:
    """What was there before says which branch is released: a release of it shows what is wrong now."""
    try:
        return settings_at(tip, old or tip.sha)
    except SettingsError:
        return Settings(app=app.name)


def _later(ledger: Ledger, rows: Sequence[DeliveryRecord], why: str) -> str:
    ledger.deliveries.settle([row.id for row in rows if row.tries + 1 >= TRIES], "failed", f"{why} ({TRIES} tries)")
    tries = max(row.tries for row in rows)
    ledger.deliveries.retry_later([row.id for row in rows], why, PAUSES[min(tries, len(PAUSES) - 1)])
    return why


def _start(ledger: Ledger, control: Control, app: AppRecord, row: DeliveryRecord) -> str:
    """Whoever comes here again, after a crash, gets the same run.

    Its release is entered here, so that one whose run dies before it has read a file is known, and told why.
    """
    key = hashlib.sha256(f"{row.app} {row.delivery} {row.position}".encode()).hexdigest()
    flow, asked = _wanted(app, row)
    run = control.start(flow, asked, idempotency_key=f"inbox-{key}")
    if flow != "teardown/main":
        _enter(ledger, app, row, run, asked["by"])
    ledger.deliveries.mark_started(row.id, run)
    return f"{(row.sha or '')[:7]}: {control.run_url(run)}"


def _enter(ledger: Ledger, app: AppRecord, row: DeliveryRecord, run: str, by: str) -> None:
    event = row.event
    name = app.name if isinstance(event, PushEvent) else previews.name(app.name, event.number)
    release = ledger.releases.start(
        name,
        app.repo,
        row.sha or "",
        flow_run_id=run,
        requested_by=by,
        preview=isinstance(event, PullRequestEvent),
    )
    ledger.releases.update(release.id, sha=row.sha)


def _wanted(app: AppRecord, row: DeliveryRecord) -> tuple[str, dict[str, Any]]:
    """The flow that a delivery asks for, and its parameters."""
    event, by = row.event, f"{row.event.by or 'somebody'} at {app.host}"
    if isinstance(event, PushEvent):
        return "release/main", {"repo": app.repo, "ref": row.sha, "by": by}
    asked = {"app": app.name, "number": event.number, "by": by}
    if row.sha == NOTHING:
        return "teardown/main", asked | {"reason": "the pull request was closed"}
    return "preview/main", asked | {"sha": row.sha, "base": event.base, "fork": event.fork}
