"""Previews as they should be: what is open stands, nothing else does, whatever webhook never came, whatever died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from headway.config import PREVIEW
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

ASK = 300.0  # seconds between two questions to a host about an app
ASKING = 10.0  # seconds of a round after which no more apps are asked about: what time decides does not wait for hosts
REST = timedelta(hours=1)  # until it is tried again to tear down what could not be
AT_ONCE = 5  # pull requests, of all apps, that a round finds open and starts: there may be hundreds
GIVEN_UP = f"it could not be torn down in {MAX_ATTEMPTS} tries, and needs a person"


class PreviewReconciler(Controller):
    """Compares preview environments with the ledger in each call, and with the git hosts every `ASK` seconds."""

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
        self._asked: dict[str, float] = {}
        self._backoff = Backoff()

    async def reconcile(self) -> list[str]:
        """Return a line for each preview that is created, torn down, or cannot be compared."""
        entered: list[str] = []
        silent: list[str] = []
        apps = {app.name: app for app in await asyncio.to_thread(self._ledger.apps.all)}
        known: dict[str, dict[int, PullRequest]] = {}
        enough = time.monotonic() + ASKING
        for app in sorted(apps.values(), key=self._last_asked):
            if time.monotonic() > enough:
                break
            if app.reports is None or self._backoff.active(app.reports):
                continue
            if time.monotonic() < self._last_asked(app) + ASK:
                continue
            self._asked[app.name] = time.monotonic()
            try:
                known[app.name] = await self._open_now(app, app.reports)
                self._backoff.succeeded(app.reports)
                entered += await asyncio.to_thread(self._missed, app, known[app.name], AT_ONCE - len(entered))
            except HeadwayError as error:
                if not (isinstance(error, GitHostError) and error.refused):
                    self._backoff.failed(app.reports, error)
                silent.append(f"{app.name}: its previews are left as they are: {error.what}")
        return entered + silent + await asyncio.to_thread(self._outdated, set(apps), known)

    def _last_asked(self, app: AppRecord) -> float:
        return self._asked.get(app.name, -ASK)

    async def _open_now(self, app: AppRecord, reports: str) -> dict[int, PullRequest]:
        """The open pull requests. One that stands and is not among them is asked about by itself: lists have ends."""
        host = await self._load_git_host(reports)
        found = await asyncio.to_thread(host.open_pull_requests, app.path)
        for preview in await asyncio.to_thread(self._ledger.previews.active, app.name):
            if preview.number not in found:
                now = await asyncio.to_thread(host.pull_request, app.path, preview.number)
                if now is None or now.open:
                    found[preview.number] = now or _unknown(preview)
        return found

    def _missed(self, app: AppRecord, open_now: dict[int, PullRequest], room: int) -> list[str]:
        """Enter in the inbox what no webhook told of: a commit, or that it was opened again."""
        said: list[str] = []
        for number, pull in sorted(open_now.items(), reverse=True):
            if len(said) == room:
                break
            last = self._ledger.deliveries.latest_start(app.name, f"#{number}")
            closed = last.id if last and last.sha == NOTHING else 0
            if pull.head and not self._ledger.deliveries.mentions(app.name, f"#{number}", pull.head, after=closed):
                name = f"poll-{number}-{pull.head}-{closed}"
                self._ledger.deliveries.receive([Delivery(app=app.name, delivery=name, event=event_of(app, pull))])
                said.append(f"{app.name}: pull request {number} has {pull.head[:7]}, and no webhook said so")
        if said:
            self._deliveries_stored.set()
        return said

    def _outdated(self, registered: set[str], known: dict[str, dict[int, PullRequest]]) -> list[str]:
        """Tear down what should not stand any more."""
        said: list[str] = []
        busy = {release.app for release in self._ledger.releases.unfinished() if release.state == "running"}
        for preview in self._ledger.previews.active():
            why = previews.why_gone(preview, known.get(preview.of), datetime.now(UTC))
            try:
                why = why or self._left_half_way(preview)
                if why and preview.app not in busy:
                    said.append(f"{preview.app}: {why}: {self._tear_down(preview, why)}")
            except ServiceUnavailable:
                raise  # the next round finds everything as it was
            except HeadwayError as error:
                said.append(f"{preview.app}: {why}: {error.what}")
            if why:
                continue
            if preview.of not in registered:
                take = f"headway preview {preview.of} {preview.number} --teardown"
                said.append(f"{preview.app}: an orphan, {preview.of} is registered no more: {take}")
        return said

    def _left_half_way(self, preview: PreviewRecord) -> str:
        """Why it was to be torn down by a run that has ended, or died, before it had."""
        holder = self._ledger.locks.holder(preview.app, PREVIEW)
        if holder and not holder.expired:
            return ""
        begun = self._ledger.rollouts.incomplete(preview.app, PREVIEW)
        if begun and begun[-1].plan.strategy == TEARDOWN:
            return begun[-1].reason
        last = self._ledger.deliveries.latest_start(preview.of, f"#{preview.number}")
        if last is None or last.sha != NOTHING or last.flow_run_id is None:
            return ""
        try:
            ended = self._control.flow_run(last.flow_run_id).final
        except NotFound:
            ended = True
        return "the pull request was closed" if ended else ""

    def _tear_down(self, preview: PreviewRecord, why: str) -> str:
        given_up = preview.given_up_at
        if given_up and datetime.now(UTC) < given_up + REST:
            return GIVEN_UP
        asked = {"app": preview.of, "number": preview.number, "reason": why, "by": "headway"}
        asked["seen"] = preview.updated_at.isoformat()
        key = f"teardown-{preview.app}-{asked['seen']}" + (f"-{given_up.isoformat()}" if given_up else "")
        if start_with_retries("teardown/main", asked, key, self._control):
            return "it is torn down"
        self._ledger.previews.mark_stuck(preview.app)
        return GIVEN_UP


def _unknown(preview: PreviewRecord) -> PullRequest:
    """A host that knows nothing of a pull request does not say that it is closed: perhaps we may not see it."""
    return PullRequest(number=preview.number, open=True, head="", fork=preview.fork, base="", branch="")


def event_of(app: AppRecord, pull: PullRequest, by: str = "", *, again: bool = False) -> PullRequestEvent:
    """As if a webhook had come."""
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
