"""Keep the deployments that an earlier version registered under other names, for scheduled runs and for callers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headway.domain.deployments import FORMER

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["present_schedules", "restore", "upgrade"]

MARK = "former-name"  # tag of a deployment whose schedules have moved


async def present_schedules() -> dict[str, list[DeploymentSchedule]]:
    """Schedules of the deployments that the server has, by name."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    found = {}
    async with get_client() as client:
        for name in FORMER.values():
            with contextlib.suppress(ObjectNotFound):
                found[name] = (await client.read_deployment_by_name(name)).schedules
    return found


async def restore(schedules: Mapping[str, list[DeploymentSchedule]]) -> None:
    """Set the schedules again that `prefect deploy` has replaced by those of prefect.yaml."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        for name, kept in schedules.items():
            deployment = await client.read_deployment_by_name(name)
            if _told(deployment.schedules) != _told(kept):
                await _set_schedules(client, deployment, kept)


def _told(schedules: Sequence[DeploymentSchedule]) -> list[tuple[object, ...]]:
    return [(one.schedule, one.active, one.parameters, one.slug) for one in schedules]


async def upgrade() -> None:
    """Move the schedules of each former deployment to the present one, and let it run the present flow.

    Safe to repeat. A server that never had the former names does not get them.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    async with get_client() as client:
        for former, present in FORMER.items():
            try:
                old = await client.read_deployment_by_name(former)
            except ObjectNotFound:
                continue
            new = await client.read_deployment_by_name(present)
            if MARK not in old.tags:
                await _move_schedules(client, old, new)
            await _follow(client, old, new, present)


async def _move_schedules(client: PrefectClient, old: DeploymentResponse, new: DeploymentResponse) -> None:
    """Give the present deployment the schedules of the former one, with what somebody has changed of them."""
    from prefect.client.schemas.actions import DeploymentUpdate

    await _set_schedules(client, new, old.schedules)
    if old.paused:
        await client.update_deployment(new.id, DeploymentUpdate(paused=True))


async def _set_schedules(
    client: PrefectClient, deployment: DeploymentResponse, schedules: Sequence[DeploymentSchedule]
) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    for schedule in deployment.schedules:
        await client.delete_deployment_schedule(deployment.id, schedule.id)
    wanted = [
        DeploymentScheduleCreate(
            schedule=one.schedule,
            active=one.active,
            max_scheduled_runs=one.max_scheduled_runs,
            parameters=one.parameters,
            slug=one.slug,
        )
        for one in schedules
    ]
    if wanted:
        await client.create_deployment_schedules(deployment.id, wanted)


async def _follow(client: PrefectClient, old: DeploymentResponse, new: DeploymentResponse, present: str) -> None:
    """Make the former deployment a copy of the present one, without schedules."""
    for schedule in old.schedules:
        await client.delete_deployment_schedule(old.id, schedule.id)
    await client.create_deployment(
        flow_id=new.flow_id,
        name=old.name,
        description=f"Former name of {present}. It works until the next minor version of Headway.",
        version=new.version,
        parameters=new.parameters,
        work_queue_name=new.work_queue_name,
        work_pool_name=new.work_pool_name,
        tags=[*new.tags, MARK],
        path=new.path,
        entrypoint=new.entrypoint,
        parameter_openapi_schema=new.parameter_openapi_schema,
        pull_steps=new.pull_steps,
        enforce_parameter_schema=new.enforce_parameter_schema,
        job_variables=new.job_variables,
    )
