"""Preflight checks before the build: the configuration of every environment, and no secrets in the repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import acreate_table_artifact
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import look_up
from headway.build.secret_scan import BASELINE, find_secrets
from headway.config import Settings, env_validation
from headway.config.env_validation import Configured
from headway.domain.errors import CheckFailed
from headway.domain.revision import SecretRef
from headway.domain.source import Source
from headway.rollout.planning import require_supported
from tasks.release_record import ReleaseSession

__all__ = ["preconditions"]


async def preconditions(release: ReleaseSession, source: Source, settings: Settings, path: list[str]) -> None:
    """Run the preflight checks, unless they passed before the run was resumed. Raises CheckFailed."""
    if not release.passed_stage("configuration"):
        await check_configuration(release, settings, path)
        await check_leaks(release, source, settings)


@task(name="configuration", task_run_name="configuration", cache_policy=NO_CACHE)
async def check_configuration(release: ReleaseSession, settings: Settings, path: list[str]) -> None:
    """Check every environment: its blocks, what its target can do, and its variables against the env schema.

    Raises NotFound, UsageError, CheckFailed.
    """
    with release.stage("configuration") as stage:
        await _require_blocks(settings, path)
        configured = {environment: await _configured(settings, environment) for environment in path}
        found = env_validation.examine(settings.env, configured)
        errors = [one for one in found if one.level == "error"]
        for one in found:
            get_run_logger().warning("%s: %s: %s: %s", one.environment, one.variable, one.level, one.what)
        if found:
            await acreate_table_artifact(
                key=f"configuration-{release.record.app}",
                table=env_validation.table(found),
                description=f"configuration of {release.record.name}",
            )
        if errors:
            first, *more = [f"{one.environment}: {one.variable}: {one.what}" for one in errors]
            lines = "".join(f"\n  {one}" for one in more)
            raise CheckFailed(
                f"configuration: {first}" + (f" (and {len(more)} more){lines}" if more else ""),
                "nothing was built or deployed: correct the env of headway.yaml, or the secrets it names",
            )
        warnings = len(found)
        stage.detail = f"{sum(len(one.values) for one in configured.values())} values" + (
            f", {warnings} warnings" if warnings else ""
        )


async def _require_blocks(settings: Settings, path: list[str]) -> None:
    """Raise NotFound or UsageError for what a later environment would fail on, when others are rolled out already."""
    for name in path:
        environment = settings.environment(name)
        require_supported(await loading.load_target(environment.target), environment, name)
        for analysis in environment.strategy.analyses:
            for metric in (analysis.metrics or {}).values():
                await loading.load_metric_source(metric.source)


async def _configured(settings: Settings, environment: str) -> Configured:
    variables = settings.variables(environment)
    values, missing = await look_up(variables)
    return Configured(
        values=values,
        given=frozenset(settings.environment(environment).env),
        secrets=frozenset(name for name, value in variables.items() if isinstance(value, SecretRef)),
        missing=missing,
    )


@task(name="secrets in the repository", task_run_name="secrets in the repository", cache_policy=NO_CACHE)
async def check_leaks(release: ReleaseSession, source: Source, settings: Settings) -> None:
    """Scan the commit for secrets. Raises CheckFailed with the location of each one that is not in the baseline."""
    with release.stage("secrets in the repository"):
        found = await asyncio.to_thread(find_secrets, Path(source.workspace), settings.secret_scan.exceptions)
        if found:
            places = "".join(f"\n  {one}" for one in found[:20])
            raise CheckFailed(
                f"secrets in the repository: {len(found)} readable by everybody with access to it{places}",
                "remove and revoke them: they stay in the history. Mark a false positive with "
                f"a comment `pragma: allowlist secret`, in {BASELINE}, or in secret_scan/exceptions",
            )
