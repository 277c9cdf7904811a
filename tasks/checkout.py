"""From a repository and a ref to one commit's tree in a workspace of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect import task
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from headway import config as headway_yaml
from headway.domain.errors import UsageError
from headway.domain.source import Source
from headway.scm import git
from headway.system.paths import home
from tasks.run_results import once_per_run

__all__ = ["checkout", "look", "read_settings"]


async def unless_asked_wrongly(_task: Any, _run: Any, state: Any) -> bool:
    """A ref that does not exist will not exist in ten seconds either; a network may be back by then."""
    return not isinstance(await state.aresult(raise_on_failure=False), UsageError)


@task(
    name="checkout",
    task_run_name="checkout",
    persist_result=True,
    cache_policy=once_per_run("repo", "ref"),
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=1,
    retry_condition_fn=unless_asked_wrongly,
)
async def checkout(repo: str, ref: str) -> Source:
    """The exact commit that `ref` names now; a branch that moves on later changes nothing."""
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
    """What a commit says of itself; not one of its files is touched."""
    return await asyncio.to_thread(git.look, repo, sha, home() / "workspaces")


@task(name="settings", task_run_name="settings", persist_result=True, cache_policy=once_per_run("source.sha"))
async def read_settings(source: Source) -> headway_yaml.Settings:
    """headway.yaml of that commit, validated before anything starts."""
    return await asyncio.to_thread(headway_yaml.load, Path(source.workspace))
