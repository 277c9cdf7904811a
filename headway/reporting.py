"""Tells git hosts how releases do. Beside them: a host that is away, slow or unwilling never holds a release up.

The ledger knows what has been told; what differs from how things stand now is told in the next round, until all is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from headway.control import Control
from headway.errors import GitHostError, HeadwayError
from headway.ledger import AppRecord, Ledger, ReleaseRecord
from headway.ports import GitHost, Target
from headway.verdicts import CommitStatus, Deployment, deployments, statuses

__all__ = ["Reporter"]

PAUSE = 10.0  # seconds in which a host that failed is left alone
LONGEST_PAUSE = 600.0


class Reporter:
    """One round after another; each host is left alone after it failed, longer every time."""

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        load_git_host: Callable[[str], Awaitable[GitHost]],
        load_target: Callable[[str], Awaitable[Target]],
    ) -> None:
        self._ledger = ledger
        self._control = control
        self._load_git_host = load_git_host
        self._load_target = load_target
        self._rest: dict[str, tuple[float, float, str]] = {}

    async def round(self) -> list[str]:
        """Returns a line for each host that cannot be told just now."""
        apps = {app.name: app for app in await asyncio.to_thread(self._ledger.registered_apps) if app.reports}
        for release in await asyncio.to_thread(self._ledger.releases_to_tell, list(apps)):
            app = apps[release.app]
            assert app.reports is not None
            if time.monotonic() < self._rest.get(app.reports, (0.0, 0.0, ""))[0]:
                continue
            try:
                await self._tell(app, await self._load_git_host(app.reports), release)
                self._rest.pop(app.reports, None)
            except HeadwayError as error:
                self._leave_alone(app.reports, error)
        return [f"{host}: {why}" for host, (_, _, why) in self._rest.items()]

    def _leave_alone(self, host: str, error: HeadwayError) -> None:
        _, before, _ = self._rest.get(host, (0.0, PAUSE / 2, ""))
        pause = min(2 * before, LONGEST_PAUSE)
        wanted = error.after if isinstance(error, GitHostError) else None
        self._rest[host] = (time.monotonic() + max(wanted or 0.0, pause), pause, error.what)

    async def _tell(self, app: AppRecord, host: GitHost, release: ReleaseRecord) -> None:
        known = await asyncio.to_thread(self._ledger.told, release.id)
        for name, report in await self._reports(release):
            said = report.model_dump_json()
            if known.get(name) == said:
                continue
            send = host.set_status if isinstance(report, CommitStatus) else host.set_deployment
            await asyncio.to_thread(send, app.path, report)  # type: ignore[arg-type]  # each gets what it is for
            await asyncio.to_thread(self._ledger.remember_told, release.id, name, said)
        if not release.open:
            await asyncio.to_thread(self._ledger.told_all, release.id)

    async def _reports(self, release: ReleaseRecord) -> list[tuple[str, CommitStatus | Deployment]]:
        stages = await asyncio.to_thread(self._ledger.stages, release.id)
        url = self._control.run_url(release.flow_run_id or "")
        environments = await asyncio.to_thread(self._ledger.environments, release.app)
        there = [stage.name for stage in stages if stage.name in environments and stage.state == "passed"]
        urls = {name: await self._url(release.app, name) for name in there}
        places = deployments(release, stages, environments, urls, url)
        return [
            *((f"deployment/{place.environment}", place) for place in places),
            *((status.context, status) for status in statuses(release, stages, url)),
        ]

    async def _url(self, app: str, environment: str) -> str | None:
        """Where it answers; a target that does not tell is no reason to say nothing."""
        try:
            live = self._ledger.live(app, environment)
            _, spec = self._ledger.revision(app, live or "", environment=environment)
            target = await self._load_target(spec.target)
            return (await asyncio.to_thread(target.observe, app)).url
        except HeadwayError:
            return None
