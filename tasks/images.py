"""From a commit to the one artifact that goes everywhere."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from headway import bundles, commands
from headway.home import home
from headway.ledger import ReleaseRecord
from headway.model import Artifact, Source
from headway.settings import Settings
from tasks.records import ledger, stage

__all__ = ["build"]


@task(name="build", task_run_name="build", persist_result=True)
async def build(release: ReleaseRecord, source: Source, settings: Settings) -> Artifact:
    """Build once. The same commit with the same result of `build.install` is the same digest, and is not stored
    twice.
    """
    with stage(release, "build") as going_on:
        artifact = await bundles.build(
            source,
            settings.build.install,
            env={**commands.clean_environment(), **settings.build.env},
            timeout=settings.build.timeout,
            store=home() / "bundles",
            on_line=get_run_logger().info,
        )
        going_on.detail = artifact.digest[:19]
        ledger().update_release(release.id, digest=artifact.digest)
        get_run_logger().info("%s, %d bytes, in %s", artifact.digest, artifact.size, Path(artifact.location))
        return artifact
