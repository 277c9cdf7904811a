"""Smoke tests of a deployed environment, through its proxy, and the health of its dependencies."""

from __future__ import annotations

import asyncio
import time

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.secrets import resolve
from headway.config import HttpRequest
from headway.domain import dependency_health
from headway.domain.errors import HeadwayError, SmokeFailed
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import SmokeReport
from headway.rollout import smoke_tests
from headway.rollout.availability import answered
from headway.system import tls
from tasks.environment_lock import EnvironmentSession
from tasks.release_record import ReleaseSession

__all__ = ["check_dependencies", "degraded_dependencies", "smoke_test"]

DEADLINE = 15.0  # seconds that a new version has to connect to its dependencies
POLL = 0.5  # seconds between two requests
TIMEOUT = 5.0  # seconds that a response may take: the app checks its dependencies for it


@task(name="smoke", task_run_name="smoke {spec.environment}", cache_policy=NO_CACHE)
async def smoke_test(
    release: ReleaseSession,
    session: EnvironmentSession,
    revision: Revision,
    spec: LaunchSpec,
    smoke_requests: tuple[HttpRequest, ...],
) -> SmokeReport:
    """Send each request until it succeeds or its deadline is over. Raises SmokeFailed with the last response."""
    with release.stage(f"{spec.environment} smoke") as stage:
        target = await session.target(spec.target)
        url = await _url(target, revision.app, spec)
        resolved = await resolve(spec)
        report = await smoke_tests.run(
            url,
            smoke_requests,
            revision,
            environment=spec.environment,
            on_line=get_run_logger().info,
            secrets=[str(resolved.env[name]) for name in resolved.secrets],
            headers=target.request_headers,
            own=session.own,
        )
        stage.detail = f"{report.probes} probes"
        return report


@task(name="dependencies before", task_run_name="dependencies of {spec.environment} before", cache_policy=NO_CACHE)
async def degraded_dependencies(session: EnvironmentSession, spec: LaunchSpec) -> frozenset[str]:
    """Dependencies that the live version reports as degraded, which the release is not blamed for."""
    if spec.detailed is None:
        return frozenset()
    try:
        detailed = await _detailed_health(session, spec)
    except (HeadwayError, ValueError) as error:
        get_run_logger().info("dependencies before the release are not known: %s", error)
        return frozenset()
    return frozenset(one.name for one in detailed.ailing)


@task(name="dependencies", task_run_name="dependencies of {spec.environment}", cache_policy=NO_CACHE)
async def check_dependencies(
    release: ReleaseSession,
    session: EnvironmentSession,
    revision: Revision,
    spec: LaunchSpec,
    before: frozenset[str],
) -> None:
    """Check the dependencies of the new version. Raises SmokeFailed with those that are degraded since the release."""
    if spec.detailed is None:
        return
    with release.stage(f"{spec.environment} dependencies") as stage:
        deadline = time.monotonic() + DEADLINE
        while fault := await _fault(session, revision, spec, before):
            if time.monotonic() >= deadline:
                raise SmokeFailed(
                    f"{spec.environment}: {spec.detailed}: {fault}", "the app's own log says more: headway logs APP ENV"
                )
            await asyncio.sleep(POLL)
        detailed = await _detailed_health(session, spec)
        stage.detail = f"{len(detailed.dependencies)} checked"
        if detailed.ailing:
            stage.detail += f", degraded before: {'; '.join(map(str, detailed.ailing))}"
            get_run_logger().warning("%s: degraded as before: %s", spec.environment, stage.detail)


async def _fault(session: EnvironmentSession, revision: Revision, spec: LaunchSpec, before: frozenset[str]) -> str:
    try:
        detailed = await _detailed_health(session, spec)
    except (HeadwayError, ValueError) as error:
        return str(error)
    since = [str(one) for one in detailed.ailing if one.name not in before]
    return detailed.wrong_version(revision) or (f"degraded since the release: {'; '.join(since)}" if since else "")


async def _url(target: Target, app: str, spec: LaunchSpec) -> str:
    """Where the environment answers. Raises SmokeFailed."""
    seen = await answered(lambda: asyncio.to_thread(target.observe, app), on_line=get_run_logger().info)
    if (url := seen.url) is None:
        raise SmokeFailed(f"{spec.environment}: {app} has no address on {spec.target}", "was it rolled out?")
    return url


async def _detailed_health(session: EnvironmentSession, spec: LaunchSpec) -> dependency_health.Detailed:
    """Read the detailed health endpoint. Raises ValueError for an unreadable response, SmokeFailed without one."""
    target = await session.target(spec.target)
    url = await _url(target, session.app, spec)
    headers = dict(target.request_headers)
    try:
        transport = session.own.transport(tls.for_url(url))
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT, transport=transport) as client:
            answer = await client.get(f"{url.rstrip('/')}{spec.detailed}", headers=headers)
    except httpx.HTTPError as error:
        raise SmokeFailed(
            f"no answer: {type(error).__name__}", "are the health checks of its dependencies slow?"
        ) from error
    return dependency_health.read(answer.json())
