"""Schema migrations: expand before a rollout, contract when its rollback window is over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.secrets import resolve
from headway.config import BlueGreen, Environment
from headway.domain import freeze_windows
from headway.domain.errors import HeadwayError, MigrationFailed, MigrationRefused, TargetError
from headway.domain.ports import Command, Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import Source
from headway.ledger import SchemaChange
from headway.system.output_log import output_log
from headway.system.paths import command_output
from headway.system.redaction import Masker
from tasks.approval_evidence import schema_decision
from tasks.artifacts import publish_migration_output
from tasks.environment_lock import EnvironmentSession
from tasks.release_record import ReleaseSession

__all__ = ["contract_schema", "idle_revisions", "migrate", "revert_schema", "schedule_contract"]


@task(name="migrate", task_run_name="migrate {spec.environment}", cache_policy=NO_CACHE)
async def migrate(
    release: ReleaseSession, session: EnvironmentSession, source: Source, revision: Revision, spec: LaunchSpec
) -> None:
    """Run the expand migration of the release, or record its contract migration for later.

    Raises MigrationRefused, MigrationFailed. No instance has changed then: the old version still serves.
    """
    rules = spec.migrations
    if rules is None:
        return
    with release.stage(f"{spec.environment} migrations") as stage:
        decision = await schema_decision(session.ledger, session.app, source, spec)
        stage.detail = str(decision)
        if decision.kind is None:
            stage.state = "skipped"
            return
        change = session.ledger.schema_changes.plan(
            release.record.id, session.app, spec.environment, revision.id, kind=decision.kind, files=decision.files
        )
        migration = _Migration(session, await session.target(spec.target), change, revision, await resolve(spec))
        if rules.check:
            await migration.dry_run(rules.check)
        if decision.kind == "expand":
            await migration.run(rules.apply, "done")


def schedule_contract(release: ReleaseSession, environment: Environment, spec: LaunchSpec) -> None:
    """Schedule the contract migration for the end of the rollback window, or of a freeze at that time."""
    if spec.migrations is None:
        return
    strategy = environment.strategy
    warm = strategy.scale_down_delay if isinstance(strategy, BlueGreen) else 0.0
    due = datetime.now(UTC) + timedelta(seconds=max(warm, spec.migrations.rollback_window))
    frozen = freeze_windows.closed(environment.freeze, due)
    release.ledger.schema_changes.schedule_contract(
        release.record.id, spec.environment, frozen.until if frozen else due
    )


async def idle_revisions(session: EnvironmentSession) -> list[str]:
    """Revisions that run without traffic. They must stop before a contract migration: they still use the database."""
    live = session.ledger.rollouts.live(session.app, session.environment)
    if live is None:
        return []
    _, spec = session.revision(live)
    observation = await asyncio.to_thread((await session.target(spec.target)).observe, session.app)
    return [one for one in observation.instances if not observation.traffic.weights.get(one)]


@task(name="contract", task_run_name="contract {session}", cache_policy=NO_CACHE)
async def contract_schema(session: EnvironmentSession, revision_id: str) -> None:
    """Run the contract migration of a revision, if it is due.

    It is cancelled when an older version, which still needs what it removes, is live again.
    """
    app, environment, changes = session.app, session.environment, session.ledger.schema_changes
    due = [one for one in changes.due_contracts(datetime.now(UTC)) if (one.app, one.environment) == (app, environment)]
    change = next((one for one in due if one.revision == revision_id), None)
    if change is None or session.ledger.rollouts.incomplete(app, environment):
        get_run_logger().info("%s: no contract of %s is to be done now", session, revision_id)
        return
    live = session.ledger.rollouts.live(app, environment)
    if change in changes.contracts_after(app, environment, live):
        changes.finish(change.id, "cancelled", f"{live or 'nothing'} is live")
        return
    revision, spec = session.revision(revision_id)
    assert spec.migrations is not None  # the release that recorded the change had them
    await _Migration(session, await session.target(spec.target), change, revision, await resolve(spec)).run(
        spec.migrations.apply, "done"
    )


@task(name="revert", task_run_name="revert {session}", cache_policy=NO_CACHE)
async def revert_schema(session: EnvironmentSession, change: SchemaChange) -> None:
    """Revert a contract migration with migrations/revert. Raises MigrationRefused, MigrationFailed."""
    revision, spec = session.revision(change.revision)
    command = spec.migrations.revert if spec.migrations else None
    if command is None:
        raise MigrationRefused(
            f"{session.environment}: {revision}: its contract migration cannot be reverted without migrations/revert",
            "release a version that works with the current database",
        )
    spec = spec.model_copy(update={"env": {**spec.env, "HEADWAY_MIGRATIONS": str(len(change.files) or 1)}})
    await _Migration(session, await session.target(spec.target), change, revision, await resolve(spec)).run(
        command, "reverted"
    )


class _Migration:
    """The commands of one schema change, and their record in the ledger. `spec` has its secrets resolved."""

    def __init__(
        self,
        session: EnvironmentSession,
        target: Target,
        change: SchemaChange,
        revision: Revision,
        spec: LaunchSpec,
    ) -> None:
        self._session = session
        self._target = target
        self._changes = session.ledger.schema_changes
        self._change = change
        self._revision = revision
        self._spec = spec
        self._output: list[str] = []
        self._log = get_run_logger()

    async def dry_run(self, command: str) -> None:
        """Run `migrations/check`. Raises MigrationFailed when it does not exit with 0."""
        try:
            await self._execute("check", command)
        except BaseException as error:
            self._changes.finish(self._change.id, "cancelled", _reason(error), "\n".join(self._output))
            raise

    async def run(self, command: str, outcome: Literal["done", "reverted"]) -> None:
        """Change the database. Raises MigrationFailed, LockLost."""
        self._changes.start(self._change, self._session.lock.token)
        try:
            await self._execute("apply" if outcome == "done" else "revert", command)
        except BaseException as error:
            self._changes.finish(self._change.id, "failed", _reason(error), "\n".join(self._output))
            raise
        finally:
            await publish_migration_output(self._change, self._output)
        self._changes.finish(self._change.id, outcome, "", "\n".join(self._output))

    async def _execute(self, name: str, text: str) -> None:
        """Run a command on the target.

        Cancellation stops the command and waits for its end: it must not go on after the release is over.
        """
        where = f"{self._spec.environment}: migrations/{name}"
        assert self._spec.migrations is not None
        stop = Event()
        file = command_output(self._change.release_id, f"{self._spec.environment}-migrations")
        with output_log(file, self._show) as log:
            command = Command(text, self._spec.migrations.timeout, stop, log)
            running = asyncio.create_task(asyncio.to_thread(self._target.execute, self._revision, self._spec, command))
            try:
                code = await asyncio.shield(running)
            except TargetError as error:
                raise MigrationFailed(f"{where}: {error.what}", error.hint) from error
            except BaseException:
                stop.set()
                await asyncio.wait([running])
                raise
        if code:
            last = next((line for line in reversed(self._output) if line.strip()), "it printed nothing")
            raise MigrationFailed(
                f"{where}: exit code {code}: {Masker().quote(last)}",
                "the live version still serves; what the command did before it failed stays: repair it and release "
                "again. Its output is in the log of this task",
            )

    def _show(self, line: str) -> None:
        self._output.append(line)
        self._log.info(line)


def _reason(error: BaseException) -> str:
    return error.what if isinstance(error, HeadwayError) else type(error).__name__
