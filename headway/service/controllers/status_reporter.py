"""Tells git hosts how releases do. Beside them: a host that is away, slow or unwilling never holds a release up.

The ledger knows what has been told; what differs from how things stand now is told in the next round, until all is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from headway.domain.errors import GitHostError, HeadwayError
from headway.domain.git import CommitStatus, DeploymentStatus, StatusState
from headway.domain.ports import GitHost, Target
from headway.ledger import AppRecord, Ledger, PreviewRecord, ReleaseRecord
from headway.policy import previews
from headway.service.controllers.backoff import Backoff
from headway.service.controllers.base import Controller
from headway.service.controllers.commit_status import PREVIEW, WHOLE, deployments, short, statuses
from headway.service.prefect.client import Control

__all__ = ["StatusReporter"]

COMMENT = "comment"  # the name under which the ledger keeps what it says


class StatusReporter(Controller):
    """Sends what a host was not sent before. A host that fails is in backoff."""

    name = "reports"
    interval = 1.0

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        load_git_host: Callable[[str], Awaitable[GitHost]],
        load_target: Callable[[str], Awaitable[Target]],
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._control = control
        self._load_git_host = load_git_host
        self._load_target = load_target
        self._backoff = Backoff()

    async def reconcile(self) -> list[str]:
        """Return a line for each host in backoff."""
        apps = {app.name: app for app in await asyncio.to_thread(self._ledger.apps.all) if app.reports}
        shown = {one.app: one for one in await asyncio.to_thread(self._ledger.previews.unreported, list(apps))}
        releases = await asyncio.to_thread(self._ledger.statuses.releases_to_report, [*apps, *shown])
        for release in releases:
            preview = shown.get(release.app)
            app = apps[preview.of if preview else release.app]
            await self._to(app, release.app if preview else None, partial(self._tell, release, preview))
        open_ = {release.app for release in releases}
        for preview in shown.values():
            if not preview.stands and preview.app not in open_:
                await self._to(apps[preview.of], preview.app, partial(self._tell_of_end, preview))
        return [f"{who}: {why}" for who, why in self._backoff.errors().items()]

    async def _to(
        self, app: AppRecord, preview: str | None, tell: Callable[[AppRecord, GitHost], Awaitable[None]]
    ) -> None:
        """Unless its host is left alone just now.

        What it refuses of a preview, which may be a stranger's, keeps nothing else from being told.
        """
        assert app.reports is not None
        about = (app.reports, *([preview] if preview else []))
        if any(self._backoff.active(who) for who in about):
            return
        try:
            await tell(app, await self._load_git_host(app.reports))
            for who in about:
                self._backoff.succeeded(who)
        except HeadwayError as error:
            its_own = isinstance(error, GitHostError) and error.refused
            self._backoff.failed(preview if preview and its_own else app.reports, error)

    async def _tell(self, release: ReleaseRecord, preview: PreviewRecord | None, app: AppRecord, host: GitHost) -> None:
        known = await asyncio.to_thread(self._ledger.statuses.by_release, release.id)
        refused: GitHostError | None = None
        for name, report in await self._reports(release, preview):
            said = report.model_dump_json()
            if known.get(name) == said:
                continue
            send = host.set_status if isinstance(report, CommitStatus) else host.set_deployment
            try:
                await asyncio.to_thread(send, app.path, report)  # type: ignore[arg-type]  # each gets what it is for
            except GitHostError as error:
                if not (preview and error.refused):
                    raise
                refused = refused or error  # a stranger's commit may be marked, but not deployed, or the reverse
            else:
                await asyncio.to_thread(self._ledger.statuses.save, release.id, name, said)
        if preview:
            await self._comment(app, host, preview, release, known)
        if refused:
            raise refused
        if not release.open:
            await asyncio.to_thread(self._ledger.statuses.mark_complete, release.id)

    async def _comment(
        self, app: AppRecord, host: GitHost, preview: PreviewRecord, release: ReleaseRecord, known: dict[str, str]
    ) -> None:
        """Of the newest release alone: there is one comment, and an older one may be told late."""
        if (await asyncio.to_thread(self._ledger.releases.recent, preview.app, 1))[0].id != release.id:
            return
        # As it is now: it may have come up, and its release ended, since this round began.
        now = await asyncio.to_thread(self._ledger.previews.get, preview.app)
        stages = await asyncio.to_thread(self._ledger.stages.by_release, release.id)
        text = previews.comment(now or preview, release, stages, self._control.run_url(release.flow_run_id or ""))
        if known.get(COMMENT) != text:
            await asyncio.to_thread(host.set_comment, app.path, preview.number, _mark(preview), text)
            await asyncio.to_thread(self._ledger.statuses.save, release.id, COMMENT, text)

    async def _tell_of_end(self, preview: PreviewRecord, app: AppRecord, host: GitHost) -> None:
        """It is torn down: its comment says so, and where the host knows of deployments, it is one no more."""
        for release in await asyncio.to_thread(self._ledger.releases.recent, preview.app, 1):
            known = await asyncio.to_thread(self._ledger.statuses.by_release, release.id)
            if COMMENT in known:
                await self._comment(app, host, preview, release, known)
        # Not every commit is deployed: that of the newest release may have failed its checks.
        if said := await asyncio.to_thread(self._ledger.statuses.last, preview.app, f"deployment/{preview.app}"):
            last = DeploymentStatus.model_validate_json(said)
            over = {"state": StatusState.ENDED, "description": short(f"torn down, {preview.reason}"), "url": None}
            await asyncio.to_thread(host.set_deployment, app.path, last.model_copy(update=over))
        await asyncio.to_thread(self._ledger.previews.mark_reported, preview.app)

    async def _reports(
        self, release: ReleaseRecord, preview: PreviewRecord | None
    ) -> list[tuple[str, CommitStatus | DeploymentStatus]]:
        stages = await asyncio.to_thread(self._ledger.stages.by_release, release.id)
        url = self._control.run_url(release.flow_run_id or "")
        environments = await asyncio.to_thread(self._ledger.rollouts.environments, release.app)
        there = [stage.name for stage in stages if stage.name in environments and stage.state == "passed"]
        urls = {name: await self._url(release.app, name) for name in there}
        places = deployments(release, stages, environments, urls, url)
        if preview:  # an environment for each, or the newest would put an end to the others
            places = [place.model_copy(update={"environment": preview.app}) for place in places]
        told = statuses(release, stages, url, PREVIEW if preview else WHOLE)
        return [
            *((f"deployment/{place.environment}", place) for place in places),
            *((status.context, status) for status in told),
        ]

    async def _url(self, app: str, environment: str) -> str | None:
        """Where it answers; a target that does not tell is no reason to say nothing."""
        try:
            live = self._ledger.rollouts.live(app, environment)
            _, spec = self._ledger.revisions.find(app, live or "", environment=environment)
            target = await self._load_target(spec.target)
            return (await asyncio.to_thread(target.observe, app)).url
        except HeadwayError:
            return None


def _mark(preview: PreviewRecord) -> str:
    return f"<!-- headway {preview.mark} -->"
