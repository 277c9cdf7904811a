"""Send commit statuses, deployment statuses and preview comments to git hosts, independently of the releases.

The ledger records what was sent. Each call sends what differs from it, until everything has been sent: a host that is
down or slow delays no release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from headway.domain.errors import GitHostError, HeadwayError
from headway.domain.git import CommitStatus, DeploymentStatus, StatusState
from headway.domain.ports import GitHost, Target
from headway.ledger import AppRecord, Ledger, PreviewRecord, ReleaseRecord
from headway.ledger.releases import MERGE_QUEUE
from headway.policy import merge_queue, previews
from headway.policy.approvals import approvals_so_far
from headway.service.controllers.backoff import Backoff
from headway.service.controllers.base import Controller
from headway.service.controllers.commit_status import (
    PREVIEW_CONTEXT,
    QUEUE_CONTEXT,
    RELEASE_CONTEXT,
    checks_status,
    deployments,
    short,
    statuses,
)
from headway.service.prefect.client import Control
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["StatusReporter"]

COMMENT = "comment"  # name of the preview comment in the ledger


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
        queues = {merge_queue.name(name): name for name in apps}
        releases = await asyncio.to_thread(self._ledger.statuses.releases_to_report, [*apps, *shown, *queues])
        for release in releases:
            preview = shown.get(release.app)
            app = apps[preview.of if preview else queues.get(release.app, release.app)]
            await self._send(app, release.app if preview else None, partial(self._report, release, preview))
        open_ = {release.app for release in releases}
        for preview in shown.values():
            if not preview.active and preview.app not in open_:
                await self._send(apps[preview.of], preview.app, partial(self._report_teardown, preview))
        return [f"{key}: {error}" for key, error in self._backoff.errors().items()]

    async def _send(
        self, app: AppRecord, preview: str | None, report: Callable[[AppRecord, GitHost], Awaitable[None]]
    ) -> None:
        """Call `report`, unless its host is in backoff.

        A report about a preview, which may be a stranger's, that the host refuses puts only this preview in backoff.
        """
        assert app.reports is not None
        keys = (app.reports, *([preview] if preview else []))
        if any(self._backoff.active(key) for key in keys):
            return
        try:
            await report(app, await self._load_git_host(app.reports))
            for key in keys:
                self._backoff.succeeded(key)
        except HeadwayError as error:
            only_preview = isinstance(error, GitHostError) and error.refused
            self._backoff.failed(preview if preview and only_preview else app.reports, error)

    async def _report(
        self, release: ReleaseRecord, preview: PreviewRecord | None, app: AppRecord, host: GitHost
    ) -> None:
        known = await asyncio.to_thread(self._ledger.statuses.by_release, release.id)
        refused: GitHostError | None = None
        for name, report in await self._reports(release, preview):
            sent = report.model_dump_json()
            if known.get(name) == sent:
                continue
            send = host.set_status if isinstance(report, CommitStatus) else host.set_deployment
            try:
                await asyncio.to_thread(send, app.path, report)  # type: ignore[arg-type]  # each sends its own type
            except GitHostError as error:
                if not (preview and error.refused):
                    raise
                refused = (
                    refused or error
                )  # of a fork, hosts may accept statuses and refuse deployments, or the reverse
            else:
                await asyncio.to_thread(self._ledger.statuses.save, release.id, name, sent)
        if preview:
            await self._comment(app, host, preview, release, known)
        if refused:
            raise refused
        if not release.open:
            await asyncio.to_thread(self._ledger.statuses.mark_complete, release.id)

    async def _comment(
        self, app: AppRecord, host: GitHost, preview: PreviewRecord, release: ReleaseRecord, known: dict[str, str]
    ) -> None:
        """Update the comment, for the newest release only: a late report of an older one must not overwrite it."""
        if (await asyncio.to_thread(self._ledger.releases.recent, preview.app, 1))[0].id != release.id:
            return
        # Read it again: the preview may have started, and its release ended, since this call began.
        now = await asyncio.to_thread(self._ledger.previews.get, preview.app)
        stages = await asyncio.to_thread(self._ledger.stages.by_release, release.id)
        text = previews.comment(now or preview, release, stages, self._control.run_url(release.flow_run_id or ""))
        if known.get(COMMENT) != text:
            await asyncio.to_thread(host.set_comment, app.path, preview.number, _mark(preview), text)
            await asyncio.to_thread(self._ledger.statuses.save, release.id, COMMENT, text)

    async def _report_teardown(self, preview: PreviewRecord, app: AppRecord, host: GitHost) -> None:
        """Report in the comment and the deployment status that the preview was torn down."""
        for release in await asyncio.to_thread(self._ledger.releases.recent, preview.app, 1):
            known = await asyncio.to_thread(self._ledger.statuses.by_release, release.id)
            if COMMENT in known:
                await self._comment(app, host, preview, release, known)
        # The deployed commit is not always the newest: its checks may have failed.
        if stored := await asyncio.to_thread(self._ledger.statuses.last, preview.app, f"deployment/{preview.app}"):
            last = DeploymentStatus.model_validate_json(stored)
            words = short(f"torn down, {preview.reason}")
            ended = {"state": StatusState.ENDED, "description": words, "url": None, "transient": True, "removed": True}
            await asyncio.to_thread(host.set_deployment, app.path, last.model_copy(update=ended))
        await asyncio.to_thread(self._ledger.previews.mark_reported, preview.app)

    async def _reports(
        self, release: ReleaseRecord, preview: PreviewRecord | None
    ) -> list[tuple[str, CommitStatus | DeploymentStatus]]:
        stages = await asyncio.to_thread(self._ledger.stages.by_release, release.id)
        url = self._control.run_url(release.flow_run_id or "")
        environments = await asyncio.to_thread(self._ledger.rollouts.environments, release.app)
        reached = [stage.name for stage in stages if stage.name in environments and stage.state == "passed"]
        urls = {name: await self._url(release.app, name) for name in reached}
        on_environments = deployments(release, stages, environments, urls, url)
        if preview:  # an environment per preview: hosts end the older deployments of an environment
            own = {"environment": preview.app, "transient": True}
            on_environments = [one.model_copy(update=own) for one in on_environments]
        queued = release.app.endswith(MERGE_QUEUE)
        context = PREVIEW_CONTEXT if preview else QUEUE_CONTEXT if queued else RELEASE_CONTEXT
        waits = await asyncio.to_thread(_approval_wanted, self._ledger, release)
        on_commit = statuses(release, stages, url, context, waits)
        on_commit += [checks_status(release, stages, url)] if preview or queued else []
        return [
            *((f"deployment/{one.environment}", one) for one in on_environments),
            *((status.context, status) for status in on_commit),
        ]

    async def _url(self, app: str, environment: str) -> str | None:
        """URL of an environment; None if its target does not answer."""
        try:
            live = self._ledger.rollouts.live(app, environment)
            _, spec = self._ledger.revisions.find(app, live or "", environment=environment)
            target = await self._load_target(spec.target)
            return (await asyncio.to_thread(target.observe, app)).url
        except HeadwayError:
            return None


def _approval_wanted(ledger: Ledger, release: ReleaseRecord) -> str:
    """Which approval a release waits for, with who has approved and how many are missing; "" for none."""
    asked = ledger.approvals.waiting(release.id) if release.state == "waiting" else None
    if asked is None:
        return ""
    so_far = approvals_so_far(ledger, home_owner(home()), asked)
    return f"for approval of {asked.environment}{f': {so_far}' if so_far else ''}"


def _mark(preview: PreviewRecord) -> str:
    return f"<!-- headway {preview.mark} -->"
