"""Checkout: one commit in a workspace of its own, and its settings."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.tasks import exponential_backoff

from headway import config as headway_yaml
from headway.build import bundles
from headway.domain.errors import SettingsError, UsageError
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
    settings = await _settings_of(source)
    for warning in settings.warnings:
        get_run_logger().warning(warning)
    return settings


async def _settings_of(source: Source) -> headway_yaml.Settings:
    """headway.yaml and its manifests as the commit has them: commands may have changed the workspace."""
    with tempfile.TemporaryDirectory(prefix="headway-settings-") as directory:
        tree, say = Path(directory) / "commit", get_run_logger().info
        file = tree / headway_yaml.FILE_NAME
        await bundles.export(source, tree, say, [file.name])
        if not await asyncio.to_thread(os.path.lexists, file):
            raise SettingsError(f"{source.repo}: {source.sha[:7]} has no {file.name}", "headway init writes one")
        settings = await asyncio.to_thread(headway_yaml.load, file)
        if not any(settings.manifests_of(name) for name in settings.environments):
            return settings
        await bundles.export(source, tree, say)  # a kustomization may use any file
        return await asyncio.to_thread(headway_yaml.load, tree)
