"""Reconcile preview environments with pull requests: create missing previews, tear down those of closed ones.

This corrects for lost webhooks, and for flow runs that died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from headway.config import PREVIEW
from headway.domain import deployments
from headway.domain.errors import GitHostError, HeadwayError, NotFound, ServiceUnavailable
from headway.domain.events import NOTHING
from headway.domain.git import PullRequest
from headway.domain.ports import GitHost
from headway.ledger import AppRecord, Delivery, Ledger, PreviewRecord
from headway.policy import previews
from headway.rollout.strategies import TEARDOWN
from headway.scm.webhooks import HOSTS, PullRequestEvent
from headway.service.controllers.backoff import Backoff
from headway.service.controllers.base import Controller
from headway.service.controllers.run_retries import MAX_ATTEMPTS, start_with_retries
from headway.service.prefect.client import Control

__all__ = ["PreviewReconciler", "event_of"]

POLL_INTERVAL = 300.0  # seconds between two requests to a git host about an app
POLL_BUDGET = 10.0  # seconds of one call for requests to git hosts, so that expired previews are not late
STUCK_PAUSE = timedelta(hours=1)  # between attempts to tear down a preview after `MAX_ATTEMPTS` failures
START_LIMIT = 5  # previews that one call starts, over all apps: hundreds may be missing
STUCK = f"teardown failed {MAX_ATTEMPTS} times: see the runs of the flow teardown in Prefect"


class PreviewReconciler(Controller):
    """Compares preview environments with the ledger in each call, with git hosts every `POLL_INTERVAL` seconds."""

    name = "previews"
    interval = 5.0

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        load_git_host: Callable[[str], Awaitable[GitHost]],
        deliveries_stored: asyncio.Event,
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._control = control
        self._load_git_host = load_git_host
        self._deliveries_stored = deliveries_stored
        self._polled: dict[str, float] = {}
        self._backoff = Backoff()

    async def reconcile(self) -> list[str]:
        """Return a line for each preview that is created, torn down, or cannot be compared."""
        started: list[str] = []
        errors: list[str] = []
        apps = {app.name: app for app in await asyncio.to_thread(self._ledger.apps.all)}
        known: dict[str, dict[int, PullRequest]] = {}
        end = time.monotonic() + POLL_BUDGET
        for app in sorted(apps.values(), key=self._last_polled):
            if time.monotonic() > end:
                break
            if app.reports is None or self._backoff.active(app.reports):
                continue
            if time.monotonic() < self._last_polled(app) + POLL_INTERVAL:
                continue
            self._polled[app.name] = time.monotonic()
            try:
                known[app.name] = await self._open_now(app, app.reports)
                self._backoff.succeeded(app.reports)
                started += await asyncio.to_thread(self._missed, app, known[app.name], START_LIMIT - len(started))
            except HeadwayError as error:
                if not (isinstance(error, GitHostError) and error.refused):
                    self._backoff.failed(app.reports, error)
                errors.append(f"{app.name}: previews not compared: {error.what}")
        return started + errors + await asyncio.to_thread(self._outdated, set(apps), known)

    def _last_polled(self, app: AppRecord) -> float:
        return self._polled.get(app.name, -POLL_INTERVAL)

    async def _open_now(self, app: AppRecord, reports: str) -> dict[int, PullRequest]:
        """The open pull requests by number. Those with a preview that are not in the list are requested singly."""
        host = await self._load_git_host(reports)
        found = await asyncio.to_thread(host.open_pull_requests, app.path)
        for preview in await asyncio.to_thread(self._ledger.previews.active, app.name):
            if preview.number not in found:
                now = await asyncio.to_thread(host.pull_request, app.path, preview.number)
                if now is None or now.open:
                    found[preview.number] = now or _assumed_open(preview)
        return found

    def _missed(self, app: AppRecord, open_now: dict[int, PullRequest], room: int) -> list[str]:
        """Store a delivery for each commit, or reopened pull request, that no webhook delivered. At most `room`."""
        lines: list[str] = []
        for number, pull in sorted(open_now.items(), reverse=True):
            if len(lines) == room:
                break
            last = self._ledger.deliveries.latest_start(app.name, f"#{number}")
            closed = last.id if last and last.sha == NOTHING else 0
            if pull.head and not self._ledger.deliveries.mentions(app.name, f"#{number}", pull.head, after=closed):
                name = f"poll-{number}-{pull.head}-{closed}"
                self._ledger.deliveries.receive([Delivery(app=app.name, delivery=name, event=event_of(app, pull))])
                lines.append(f"{app.name}: pull request {number} has {pull.head[:7]}, and no webhook delivered it")
        if lines:
            self._deliveries_stored.set()
        return lines

    def _outdated(self, registered: set[str], known: dict[str, dict[int, PullRequest]]) -> list[str]:
        """Tear down previews that are expired, or whose pull request is closed."""
        lines: list[str] = []
        busy = {release.app for release in self._ledger.releases.unfinished() if release.state == "running"}
        for preview in self._ledger.previews.active():
            reason = previews.teardown_reason(preview, known.get(preview.of), datetime.now(UTC))
            try:
                reason = reason or self._unfinished_teardown(preview)
                if reason and preview.app not in busy:
                    lines.append(f"{preview.app}: {reason}: {self._tear_down(preview, reason)}")
            except ServiceUnavailable:
                raise  # the next call starts from what is recorded
            except HeadwayError as error:
                lines.append(f"{preview.app}: {reason}: {error.what}")
            if reason:
                continue
            if preview.of not in registered:
                command = f"headway preview {preview.of} {preview.number} --teardown"
                lines.append(f"{preview.app}: app {preview.of} is not registered any more: run `{command}`")
        return lines

    def _unfinished_teardown(self, preview: PreviewRecord) -> str | None:
        """The reason of a teardown whose run ended or died before it was done; None if there is none."""
        holder = self._ledger.locks.holder(preview.app, PREVIEW)
        if holder and not holder.expired:
            return None
        begun = self._ledger.rollouts.incomplete(preview.app, PREVIEW)
        if begun and begun[-1].plan.strategy == TEARDOWN:
            return begun[-1].reason
        last = self._ledger.deliveries.latest_start(preview.of, f"#{preview.number}")
        if last is None or last.sha != NOTHING or last.flow_run_id is None:
            return None
        try:
            ended = self._control.flow_run(last.flow_run_id).final
        except NotFound:
            ended = True
        return "the pull request was closed" if ended else None

    def _tear_down(self, preview: PreviewRecord, reason: str) -> str:
        stuck_at = preview.given_up_at
        if stuck_at and datetime.now(UTC) < stuck_at + STUCK_PAUSE:
            return STUCK
        parameters = {"app": preview.of, "number": preview.number, "reason": reason, "by": "headway"}
        parameters["seen"] = preview.updated_at.isoformat()
        key = f"teardown-{preview.app}-{parameters['seen']}" + (f"-{stuck_at.isoformat()}" if stuck_at else "")
        if start_with_retries(deployments.TEARDOWN, parameters, key, self._control):
            return "tearing it down"
        self._ledger.previews.mark_stuck(preview.app)
        return STUCK


def _assumed_open(preview: PreviewRecord) -> PullRequest:
    """Stands for a pull request that the host does not find: the token may lack access, so the preview stays."""
    return PullRequest(number=preview.number, open=True, head="", fork=preview.fork, base="", branch="")


def event_of(app: AppRecord, pull: PullRequest, by: str = "", *, again: bool = False) -> PullRequestEvent:
    """The event that a webhook would have delivered."""
    host = HOSTS[(app.reports or app.host).partition("/")[0]]
    ref = (host.pull_ref or "refs/heads/{branch}").format(number=pull.number, branch=pull.branch)
    return PullRequestEvent(
        places=(app.place,),
        number=pull.number,
        open=True,
        head=pull.head,
        ref=ref,
        base=pull.base,
        fork=pull.fork,
        by=by,
        again=again,
    )
