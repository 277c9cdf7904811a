"""Ask the deployed environment, through its own proxy, whether it does what it should."""

from __future__ import annotations

import asyncio

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.secrets import resolve
from headway import project, smoke
from headway.errors import SmokeFailed
from headway.ledger import ReleaseRecord
from headway.model import LaunchSpec, Revision, SmokeReport
from headway.settings import Probe
from tasks.records import stage

__all__ = ["smoke_test"]


@task(name="smoke", task_run_name="smoke {spec.environment}", cache_policy=NO_CACHE)
async def smoke_test(
    release: ReleaseRecord, revision: Revision, spec: LaunchSpec, probes: tuple[Probe, ...]
) -> SmokeReport:
    """Every probe has its own deadline until which it is retried. Raises SmokeFailed with the last answer."""
    with stage(release, f"{spec.environment} smoke") as going_on:
        target = await project.load_target(spec.target)
        url = (await asyncio.to_thread(target.observe, revision.app)).url
        if url is None:
            raise SmokeFailed(
                f"{spec.environment}: {revision.app} has no address on {spec.target}", "was it rolled out?"
            )
        resolved = await resolve(spec)
        report = await smoke.run(
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
