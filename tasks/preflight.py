"""What has to hold before anything is built: the whole configuration, and no secret in the repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from blocks.secrets import look_up
from headway.build.secret_scan import BASELINE, leaks
from headway.config import Settings, env_validation
from headway.config.env_validation import Configured
from headway.domain.errors import CheckFailed
from headway.domain.revision import SecretRef
from headway.domain.source import Source
from headway.ledger import ReleaseRecord
from tasks.release_record import ledger, stage

__all__ = ["preconditions"]


async def preconditions(release: ReleaseRecord, source: Source, settings: Settings, path: list[str]) -> None:
    """Raises CheckFailed for the first that does not hold. A run that comes back has seen to them already."""
    if not any(one.state == "passed" for one in ledger().stages.by_release(release.id) if one.name == "configuration"):
        await check_configuration(release, settings, path)
        await check_leaks(release, source, settings)


@task(name="configuration", task_run_name="configuration", cache_policy=NO_CACHE)
async def check_configuration(release: ReleaseRecord, settings: Settings, path: list[str]) -> None:
    """Hold every environment of the release to the contract, secrets included. Raises CheckFailed with all faults."""
    with stage(release, "configuration") as going_on:
        told = {environment: await _configured(settings, environment) for environment in path}
        found = env_validation.examine(settings.env, told)
        errors = [one for one in found if one.level == "error"]
        for one in found:
            get_run_logger().warning("%s: %s: %s: %s", one.environment, one.variable, one.level, one.what)
        if found:
            await acreate_table_artifact(
                key=f"configuration-{release.app}",
                table=env_validation.table(found),
                description=f"configuration of {release.name}",
            )
        if errors:
            first, *more = [f"{one.environment}: {one.variable}: {one.what}" for one in errors]
            lines = "".join(f"\n  {one}" for one in more)
            raise CheckFailed(
                f"configuration: {first}" + (f" (and {len(more)} more){lines}" if more else ""),
                "nothing was built or deployed: correct the env of headway.yaml, or the secrets it names",
            )
        warnings = len(found)
        going_on.detail = f"{sum(len(one.values) for one in told.values())} values" + (
            f", {warnings} warnings" if warnings else ""
        )


async def _configured(settings: Settings, environment: str) -> Configured:
    told = settings.variables(environment)
    values, missing = await look_up(told)
    return Configured(
        values=values,
        given=frozenset(settings.environment(environment).env),
        secrets=frozenset(name for name, value in told.items() if isinstance(value, SecretRef)),
        missing=missing,
    )


@task(name="secrets in the repository", task_run_name="secrets in the repository", cache_policy=NO_CACHE)
async def check_leaks(release: ReleaseRecord, source: Source, settings: Settings) -> None:
    """Raises CheckFailed with the place of each secret that is in the commit, and not in its baseline."""
    with stage(release, "secrets in the repository"):
        found = await asyncio.to_thread(leaks, Path(source.workspace), settings.leaks.exceptions)
        if found:
            places = "".join(f"\n  {one}" for one in found[:20])
            raise CheckFailed(
                f"secrets in the repository: {len(found)} that everybody who gets it can read{places}",
                "take them out and make them invalid where they are from: they stay in the history. What is none gets "
                f"a comment `pragma: allowlist secret`, or into {BASELINE}, or its file into leaks/exceptions",
            )
