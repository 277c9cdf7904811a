"""Checkout: one commit in a workspace of its own, and its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from headway import config as headway_yaml
from headway.domain.errors import UsageError
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.ledger.release_inputs import SETTINGS
from headway.scm import git
from headway.system.paths import home

__all__ = ["SETTINGS", "checkout", "look", "read_settings"]


async def retry_unless_usage_error(_task: Any, _run: Any, state: Any) -> bool:
    """Retry when the network may be down. A ref that does not exist will not exist in ten seconds either."""
    return not isinstance(await state.aresult(raise_on_failure=False), UsageError)


@task(
    name="checkout",
    task_run_name="checkout",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=1,
    retry_condition_fn=retry_unless_usage_error,
)
async def checkout(repo: str, ref: str, ledger: Ledger | None = None) -> Source:
    """Check out the commit that `ref` names now; with a ledger, the commit of this run's release if it has one.

    So a run that is resumed keeps its commit, even if the branch has moved, or another worker resumes it.
    """
    run = str(flow_run.get_id())
    release = ledger.releases.by_run(run) if ledger else None
    commit = (release and release.sha) or ref
    source = await asyncio.to_thread(git.checkout, repo, commit, home() / "workspaces", run)
    return source.model_copy(update={"ref": ref})


@task(name="look", task_run_name="look at {sha}", cache_policy=NO_CACHE, retries=3, retry_delay_seconds=2)
async def look(repo: str, sha: str) -> Source:
    """Read the author, subject and time of a commit, without a checkout."""
    return await asyncio.to_thread(git.describe, repo, sha, home() / "workspaces")


@task(name="settings", task_run_name="settings", cache_policy=NO_CACHE)
async def read_settings(source: Source, ledger: Ledger | None = None) -> headway_yaml.Settings:
    """Read and validate headway.yaml of the commit; with a ledger, the settings of this run's release if it has any."""
    release = ledger.releases.by_run(str(flow_run.get_id())) if ledger else None
    if ledger and release and (stored := ledger.inputs.get(release.id, SETTINGS)):
        return headway_yaml.StoredSettings.load(stored, release.name)
    settings = await asyncio.to_thread(headway_yaml.load, Path(source.workspace))
    for warning in settings.warnings:
        get_run_logger().warning(warning)
    return settings
