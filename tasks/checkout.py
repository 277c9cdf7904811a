"""Checkout: one commit in a workspace of its own, and its settings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from headway import config as headway_yaml
from headway.domain.errors import UsageError
from headway.domain.source import Source
from headway.scm import git
from headway.system.paths import home
from tasks.run_results import once_per_run

__all__ = ["checkout", "look", "read_settings"]


async def retry_unless_usage_error(_task: Any, _run: Any, state: Any) -> bool:
    """Retry when the network may be down. A ref that does not exist will not exist in ten seconds either."""
    return not isinstance(await state.aresult(raise_on_failure=False), UsageError)


@task(
    name="checkout",
    task_run_name="checkout",
    persist_result=True,
    cache_policy=once_per_run("repo", "ref"),
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=1,
    retry_condition_fn=retry_unless_usage_error,
)
async def checkout(repo: str, ref: str) -> Source:
    """Check out the commit that `ref` names now. A resumed run keeps this commit, even if the branch has moved."""
    return await asyncio.to_thread(git.checkout, repo, ref, home() / "workspaces", str(flow_run.get_id()))


@task(
    name="look",
    task_run_name="look at {sha}",
    persist_result=True,
    cache_policy=once_per_run("repo", "sha"),
    retries=3,
    retry_delay_seconds=2,
)
async def look(repo: str, sha: str) -> Source:
    """Read the author, subject and time of a commit, without a checkout."""
    return await asyncio.to_thread(git.describe, repo, sha, home() / "workspaces")


@task(name="settings", task_run_name="settings", persist_result=True, cache_policy=once_per_run("source.sha"))
async def read_settings(source: Source) -> headway_yaml.Settings:
    """Read and validate headway.yaml of the commit."""
    settings = await asyncio.to_thread(headway_yaml.load, Path(source.workspace))
    for warning in settings.warnings:
        get_run_logger().warning(warning)
    return settings
