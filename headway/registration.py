"""Makes blocks, work pool and deployments known to a Prefect server: `python -m headway.registration`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from headway import project

__all__ = ["register"]

DEADLINE = 100.0  # seconds


async def register() -> None:
    """Repeatable: what is there already stays, but for the deployments, which become what prefect.yaml says."""
    await _work_pool()
    deploying = asyncio.create_task(asyncio.to_thread(_deploy))
    await project.register_blocks()
    await deploying


async def _work_pool() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template: dict[str, Any] = json.loads(json.dumps(ProcessWorker.get_default_base_job_template()))
    variables = template["variables"]["properties"]
    if socket := os.environ.get("HEADWAY_WARM"):
        warm = Path(__file__).with_name("warm.py")
        variables["command"]["default"] = f"{sys.executable} -I -S {warm} run {socket}"
    root = str(project.root())
    variables["working_dir"]["default"] = root
    variables["env"]["default"] = {"PYTHONPATH": root}
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name="headway", type="process", base_job_template=template))
        except ObjectAlreadyExists:
            await client.update_work_pool("headway", WorkPoolUpdate(base_job_template=template))


def _deploy() -> None:
    root = project.root()
    environment = {**os.environ, "HEADWAY_PROJECT": str(root)}
    subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=DEADLINE,
    )


if __name__ == "__main__":
    asyncio.run(register())
