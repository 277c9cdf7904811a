"""Ask the deployed environment, through its own proxy, whether it does what it should."""

from __future__ import annotations

import asyncio
import time

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import resolve
from headway.config import HttpRequest
from headway.domain import dependency_health
from headway.domain.errors import HeadwayError, SmokeFailed
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import SmokeReport
from headway.ledger import ReleaseRecord
from headway.rollout import smoke_tests
from headway.system import tls
from tasks.release_record import stage

__all__ = ["check_dependencies", "degraded", "smoke_test"]

PATIENCE = 15.0  # seconds that a new version has to find what it depends on
PAUSE = 0.5  # seconds between two questions
ANSWER = 5.0  # seconds that an answer may take: the app asks others for it


@task(name="smoke", task_run_name="smoke {spec.environment}", cache_policy=NO_CACHE)
async def smoke_test(
    release: ReleaseRecord, revision: Revision, spec: LaunchSpec, probes: tuple[HttpRequest, ...]
) -> SmokeReport:
    """Every probe has its own deadline until which it is retried. Raises SmokeFailed with the last answer."""
    with stage(release, f"{spec.environment} smoke") as going_on:
        target = await loading.load_target(spec.target)
        url = (await asyncio.to_thread(target.observe, revision.app)).url
        if url is None:
            raise SmokeFailed(
                f"{spec.environment}: {revision.app} has no address on {spec.target}", "was it rolled out?"
            )
        resolved = await resolve(spec)
        report = await smoke_tests.run(
            url,
            probes,
            revision,
            environment=spec.environment,
            on_line=get_run_logger().info,
            secrets=[str(resolved.env[name]) for name in resolved.secrets],
            headers=target.request_headers,
        )
        going_on.detail = f"{report.probes} probes"
        return report


@task(name="dependencies before", task_run_name="dependencies of {spec.environment} before", cache_policy=NO_CACHE)
async def degraded(app: str, spec: LaunchSpec) -> frozenset[str]:
    """What the version that is live says is degraded already: nobody blames a release for that."""
    if spec.detailed is None:
        return frozenset()
    try:
        said = await _ask(app, spec)
    except (HeadwayError, ValueError) as error:
        get_run_logger().info("not known before: %s", error)
        return frozenset()
    return frozenset(one.name for one in said.ailing)


@task(name="dependencies", task_run_name="dependencies of {spec.environment}", cache_policy=NO_CACHE)
async def check_dependencies(
    release: ReleaseRecord, revision: Revision, spec: LaunchSpec, before: frozenset[str]
) -> None:
    """Ask the new version how what it depends on is. Raises SmokeFailed, naming what is degraded since the release."""
    if spec.detailed is None:
        return
    with stage(release, f"{spec.environment} dependencies") as going_on:
        deadline = time.monotonic() + PATIENCE
        while fault := await _fault(revision, spec, before):
            if time.monotonic() >= deadline:
                raise SmokeFailed(
                    f"{spec.environment}: {spec.detailed}: {fault}", "the app's own log says more: headway logs APP ENV"
                )
            await asyncio.sleep(PAUSE)
        said = await _ask(revision.app, spec)
        going_on.detail = f"{len(said.dependencies)} checked"
        if said.ailing:
            going_on.detail += f", degraded before: {'; '.join(map(str, said.ailing))}"
            get_run_logger().warning("%s: degraded as before: %s", spec.environment, going_on.detail)


async def _fault(revision: Revision, spec: LaunchSpec, before: frozenset[str]) -> str:
    try:
        said = await _ask(revision.app, spec)
    except (HeadwayError, ValueError) as error:
        return str(error)
    since = [str(one) for one in said.ailing if one.name not in before]
    return said.wrong_version(revision) or (f"degraded since the release: {'; '.join(since)}" if since else "")


async def _ask(app: str, spec: LaunchSpec) -> dependency_health.Detailed:
    """Raises ValueError when the answer is none that can be read, SmokeFailed without one."""
    target = await loading.load_target(spec.target)
    url = (await asyncio.to_thread(target.observe, app)).url
    if url is None:
        raise SmokeFailed(f"{spec.environment}: {app} has no address on {spec.target}", "was it rolled out?")
    headers = dict(target.request_headers)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER, verify=tls.for_url(url)) as client:
            answer = await client.get(f"{url.rstrip('/')}{spec.detailed}", headers=headers)
    except httpx.HTTPError as error:
        raise SmokeFailed(
            f"no answer: {type(error).__name__}", "does the app take long to ask what it needs?"
        ) from error
    return dependency_health.read(answer.json())
