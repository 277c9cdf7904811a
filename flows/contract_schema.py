"""Contract migration: remove from a database what only retired versions needed."""

from __future__ import annotations

from prefect import flow

from tasks.environment_lock import hold
from tasks.release_record import open_ledger
from tasks.rollout_steps import retire_idle
from tasks.schema_migrations import contract_schema, idle_revisions

__all__ = ["contract"]


@flow(name="contract", flow_run_name="contract {app} {environment} {revision}")
async def contract(app: str, environment: str, revision: str) -> None:
    """Run the contract migration of a release whose rollback window is over. Headway starts this when it is due.

    Args:
        app: name of the app, as in its headway.yaml
        environment: staging, production, ...
        revision: the revision that brought the migration
    """
    with open_ledger() as ledger:
        holder = f"contract of {revision}"
        async with hold(ledger, app, environment, holder=holder, revision=revision) as session:
            for idle in await idle_revisions(session):
                await retire_idle(session, idle)
            await contract_schema(session, revision)
