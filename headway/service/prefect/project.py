"""Register Headway's block types, work pool and deployments with Prefect's server."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.config.platforms import platforms
from headway.service.prefect import former_deployments, program
from headway.service.prefect.connections import connections
from headway.system.project_root import project_root

if TYPE_CHECKING:
    from prefect.blocks.core import Block

__all__ = ["register"]

DEADLINE = 400.0  # seconds for prefect deploy, on a server that is busy for up to five minutes
ATTEMPTS = 10  # at registering a block type
DEFAULT_TARGETS = ("preview", "staging", "production")


async def register() -> None:
    """Register block types, default targets, the work pool and the deployments.

    Safe to repeat: it updates what prefect.yaml and Headway define, and changes nothing else.
    """
    await _work_pool()
    schedules = await former_deployments.present_schedules()
    deploying = asyncio.create_task(asyncio.to_thread(_deploy))
    await _blocks()
    await deploying
    await former_deployments.restore(schedules)
    await former_deployments.upgrade()


async def _blocks() -> None:
    """Register the block types, and create the default targets of platforms that need no configuration."""
    found = connections()
    known = found.targets()
    registry: type[Block] = importlib.import_module("blocks.registries.oci").Registry
    for block in (*known.values(), *found.metric_sources().values(), *found.git_hosts().values(), registry):
        await _register_type(block)
    for kind in (kind for kind, platform in platforms().items() if platform.default_targets):
        existing = await found.block_names(kind)
        for name in DEFAULT_TARGETS:
            if f"{kind}/{name}" not in existing:
                await _create_target(kind, name)


async def _register_type(block: type[Block]) -> None:
    """A request whose answer was lost is sent again, and finds what it has created: begin again."""
    from prefect.exceptions import ObjectAlreadyExists

    for attempt in range(1, ATTEMPTS + 1):
        try:
            await block.aregister_type_and_schema()
        except ObjectAlreadyExists:
            if attempt == ATTEMPTS:
                raise
        else:
            return


async def _create_target(kind: str, name: str) -> None:
    found = connections()
    try:
        await found.targets()[kind]().asave(name)
    except ValueError:  # a block of this name exists: created by the first attempt, whose answer was lost
        if f"{kind}/{name}" not in await found.block_names(kind):
            raise


async def _work_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template: dict[str, Any] = json.loads(json.dumps(ProcessWorker.get_default_base_job_template()))
    variables = template["variables"]["properties"]
    if socket := os.environ.get("HEADWAY_WARM"):
        warm = Path(__file__).with_name("fork_server.py")
        variables["command"]["default"] = f"{sys.executable} -I -S {warm} run {socket}"
    root = str(project_root())
    variables["working_dir"]["default"] = root
    variables["env"]["default"] = {"PYTHONPATH": root}
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name="headway", type="process", base_job_template=template))
        except ObjectAlreadyExists:
            await client.update_work_pool("headway", WorkPoolUpdate(base_job_template=template))


def _deploy() -> None:
    root = project_root()
    environment = {**os.environ, "HEADWAY_PROJECT": str(root)}
    subprocess.run(
        [sys.executable, "-m", program.__name__, "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE,
    )


if __name__ == "__main__":
    asyncio.run(register())
