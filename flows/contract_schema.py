"""Takes from a database what only retired versions needed, when nobody will go back to them."""

from __future__ import annotations

from prefect import flow

from tasks.approvals import hold
from tasks.rollout_steps import retire_idle
from tasks.schema_migrations import contract_schema, idle_revisions

__all__ = ["contract"]


@flow(name="contract", flow_run_name="{app} {environment} {revision}")
async def contract(app: str, environment: str, revision: str) -> None:
    """Do the contract of a release whose rollback window is over; Headway starts this when it is due.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        revision: the version that brought the contract
    """
    async with hold(app, environment, holder=f"contract of {revision}", revision=revision, release=None):
        for idle in await idle_revisions(app, environment):
            await retire_idle(app, environment, idle)
        await contract_schema(app, environment, revision)
