"""Brings a revision into an environment; whatever goes wrong after the first change brings the old one back."""

from __future__ import annotations

from prefect import flow

from flows.rollback import rollback
from headway.config import Environment
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import Source
from headway.ledger import ReleaseRecord
from tasks.approvals import hold
from tasks.release_record import accept, stage, undelivered
from tasks.rollout_steps import has_changed_something, plan_rollout, show_what_runs, take_step
from tasks.schema_migrations import contract_arrives, migrate
from tasks.smoke_tests import check_dependencies, degraded, smoke_test

__all__ = ["deliver", "rollout"]


async def deliver(record: ReleaseRecord, source: Source, environment: Environment, spec: LaunchSpec) -> None:
    """One environment: migrate, roll out, smoke-test, accept; or roll back. Nothing to do when the release is there
    already.
    """
    revision = undelivered(record, spec)
    if revision is None:
        return
    async with hold(record.app, spec.environment, holder=record.name, revision=revision.id, release=record):
        await migrate(record, source, revision, spec)
        before = await degraded(record.app, spec)
        try:
            await rollout(record, environment, revision, spec)
            await smoke_test(record, revision, spec, environment.smoke)
            await check_dependencies(record, revision, spec, before)
            contract_arrives(record, environment, spec)
            await accept(record, spec.environment, environment.strategy)
        except BaseException as error:
            if has_changed_something(record.app, spec.environment):
                await rollback(record.app, spec.environment, reason=f"{type(error).__name__}: {error}")
            raise


@flow(name="rollout", flow_run_name="{spec.environment} {revision}", validate_parameters=False)
async def rollout(record: ReleaseRecord, environment: Environment, revision: Revision, spec: LaunchSpec) -> None:
    """Walk the plan that the environment's strategy makes of what is live now."""
    with stage(record, spec.environment) as going_on:
        prepared = await plan_rollout(record, environment, revision, spec)
        for index, title in prepared.steps:
            await take_step(prepared, index, title)
        await show_what_runs(prepared)
        going_on.detail = str(revision)
