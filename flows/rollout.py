"""Rollout: one revision to one environment. A failure after the first change rolls the environment back."""

from __future__ import annotations

from prefect import flow

from flows.rollback import roll_back_failed
from headway.config import Environment
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import Source
from tasks.approvals import still_permitted
from tasks.artifacts import publish_live_state
from tasks.environment_lock import EnvironmentSession, hold_for_release
from tasks.receipts import require_receipt, sign_receipt
from tasks.release_record import ReleaseSession, accept, undelivered
from tasks.rollout_steps import has_changed_something, plan_rollout, take_steps
from tasks.schema_migrations import migrate, schedule_contract
from tasks.smoke_tests import check_dependencies, degraded_dependencies, smoke_test
from tasks.supersede import require_nothing_newer_live

__all__ = ["deliver", "deliver_revision", "rollout"]


async def deliver(release: ReleaseSession, source: Source, environment: Environment, spec: LaunchSpec) -> bool:
    """Deliver a release to one environment, unless it was accepted there before the run was resumed.

    Returns False, and changes nothing, when its approval became void while it waited for the environment's lock. Raises
    Superseded when a newer release is live.
    """
    revision = undelivered(release, spec)
    if revision is not None:
        async with hold_for_release(release, spec.environment, revision.id) as session:
            require_nothing_newer_live(release, spec.environment)
            if not await still_permitted(release, source, environment, spec):
                return False
            await deliver_revision(release, session, source, environment, revision, spec)
    return True


async def deliver_revision(
    release: ReleaseSession,
    session: EnvironmentSession,
    source: Source,
    environment: Environment,
    revision: Revision,
    spec: LaunchSpec,
) -> None:
    """Sign the receipt, migrate, roll out, smoke-test and accept a revision; roll back on any failure."""
    await sign_receipt(release, spec)
    await require_receipt(session, revision, spec)
    await migrate(release, session, source, revision, spec)
    degraded = await degraded_dependencies(session, spec)
    try:
        await rollout(release, session, environment, revision, spec)
        await smoke_test(release, session, revision, spec, environment.smoke)
        await check_dependencies(release, session, revision, spec, degraded)
        schedule_contract(release, environment, spec)
        await accept(release, spec.environment, environment.strategy)
    except BaseException as error:
        if has_changed_something(session):
            await roll_back_failed(session, reason=f"{type(error).__name__}: {error}")
        raise


@flow(name="rollout", flow_run_name="roll out {revision} to {spec.environment}", validate_parameters=False)
async def rollout(
    release: ReleaseSession, session: EnvironmentSession, environment: Environment, revision: Revision, spec: LaunchSpec
) -> None:
    """Take the steps of the plan that the environment's strategy makes from what is live now."""
    with release.stage(spec.environment) as stage:
        context = await plan_rollout(release, session, environment, revision, spec)
        await take_steps(session, context)
        await publish_live_state(session.ledger, context)
        stage.detail = str(revision)
