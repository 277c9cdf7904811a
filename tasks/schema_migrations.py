"""The database follows the code: what adds comes before a rollout, what takes away long after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Literal

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from blocks import loading
from blocks.secrets import resolve
from headway.config import BlueGreen, Environment
from headway.domain import freeze_windows
from headway.domain.errors import HeadwayError, MigrationFailed, MigrationRefused, TargetError
from headway.domain.ports import Command, Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import Source
from headway.ledger import ReleaseRecord, SchemaChange
from tasks.approval_evidence import planned
from tasks.approvals import held
from tasks.release_record import ledger, stage

__all__ = ["contract_arrives", "contract_schema", "idle_revisions", "migrate", "revert_schema"]


@task(name="migrate", task_run_name="migrate {spec.environment}", cache_policy=NO_CACHE)
async def migrate(release: ReleaseRecord, source: Source, revision: Revision, spec: LaunchSpec) -> None:
    """Before anything is launched: do what the new version needs, or remember what is to be done when the old is gone.

    Raises MigrationRefused, or MigrationFailed: then no instance has changed, and the old version serves as before.
    """
    rules = spec.migrations
    if rules is None:
        return
    with stage(release, f"{spec.environment} migrations") as going_on:
        decision = await planned(release.app, source, spec)
        going_on.detail = str(decision)
        if decision.kind is None:
            going_on.state = "skipped"
            return
        change = ledger().schema_changes.plan(
            release.id, release.app, spec.environment, revision.id, kind=decision.kind, files=decision.files
        )
        doing = _Doing(change, await _target(spec, release.app), revision, await resolve(spec))
        if rules.check:
            await doing.rehearse(rules.check)
        if decision.kind == "expand":
            await doing.run(rules.apply, "done")


def contract_arrives(release: ReleaseRecord, environment: Environment, spec: LaunchSpec) -> None:
    """The way back is open for a while; then, when nothing is frozen, a sweep has the contract done."""
    if spec.migrations is None:
        return
    strategy = environment.strategy
    warm = strategy.scale_down_delay if isinstance(strategy, BlueGreen) else 0.0
    due = datetime.now(UTC) + timedelta(seconds=max(warm, spec.migrations.rollback_window))
    frozen = freeze_windows.closed(environment.freeze, due)
    ledger().schema_changes.schedule_contract(release.id, spec.environment, frozen.until if frozen else due)


async def idle_revisions(app: str, environment: str) -> list[str]:
    """What runs there and gets no traffic, so that nobody looks at the database through it."""
    live = ledger().rollouts.live(app, environment)
    if live is None:
        return []
    _, spec = ledger().revisions.find(app, live, environment=environment)
    observation = await asyncio.to_thread((await loading.load_target(spec.target)).observe, app)
    return [one for one in observation.instances if not observation.traffic.weights.get(one)]


@task(name="contract", task_run_name="contract {app} {environment}", cache_policy=NO_CACHE)
async def contract_schema(app: str, environment: str, revision_id: str) -> None:
    """Take from the database what only older versions needed, with the files of the version that does without it.

    When somebody has gone back to an older version meanwhile, it is not done any more.
    """
    due = [one for one in ledger().schema_changes.due_contracts(datetime.now(UTC)) if one.app == app]
    change = next((one for one in due if (one.environment, one.revision) == (environment, revision_id)), None)
    if change is None or ledger().rollouts.incomplete(app, environment):
        get_run_logger().info("%s %s: no contract of %s is to be done now", app, environment, revision_id)
        return
    live = ledger().rollouts.live(app, environment)
    if change in ledger().schema_changes.contracts_after(app, environment, live):
        ledger().schema_changes.finish(change.id, "cancelled", f"{live or 'nothing'} is live")
        return
    revision, spec = ledger().revisions.find(app, revision_id, environment=environment)
    assert spec.migrations is not None  # its release had some
    doing = _Doing(change, await _target(spec, app), revision, await resolve(spec))
    await doing.run(spec.migrations.apply, "done")


@task(name="revert", task_run_name="revert {app} {environment}", cache_policy=NO_CACHE)
async def revert_schema(app: str, environment: str, change: SchemaChange) -> None:
    """Give the database back what a contract took from it, as far as its command can."""
    revision, spec = ledger().revisions.find(app, change.revision, environment=environment)
    command = spec.migrations.revert if spec.migrations else None
    if command is None:
        raise MigrationRefused(
            f"{environment}: the contract of {revision} cannot be taken back: migrations/revert was not declared",
            "release a version that does without what was taken away",
        )
    spec = spec.model_copy(update={"env": {**spec.env, "HEADWAY_MIGRATIONS": str(len(change.files) or 1)}})
    await _Doing(change, await _target(spec, app), revision, await resolve(spec)).run(command, "reverted")


async def _target(spec: LaunchSpec, app: str) -> Target:
    target = await loading.load_target(spec.target)
    await asyncio.to_thread(target.claim, app, held(app, spec.environment).token)
    return target


class _Doing:
    """The commands of one change, and its entry in the ledger. `spec` has its secrets."""

    def __init__(self, change: SchemaChange, target: Target, revision: Revision, spec: LaunchSpec) -> None:
        self._change = change
        self._target = target
        self._revision = revision
        self._spec = spec
        self._said: list[str] = []
        self._log = get_run_logger()

    async def rehearse(self, command: str) -> None:
        """The dry run. Raises MigrationFailed when it does not end with 0."""
        try:
            await self._execute("check", command)
        except BaseException as error:
            ledger().schema_changes.finish(self._change.id, "cancelled", _words(error), "\n".join(self._said))
            raise

    async def run(self, command: str, outcome: Literal["done", "reverted"]) -> None:
        """Change the database. Raises MigrationFailed, LockLost."""
        ledger().schema_changes.start(self._change, held(self._change.app, self._change.environment).token)
        try:
            await self._execute("apply" if outcome == "done" else "revert", command)
        except BaseException as error:
            ledger().schema_changes.finish(self._change.id, "failed", _words(error), "\n".join(self._said))
            raise
        finally:
            await self._show()
        ledger().schema_changes.finish(self._change.id, outcome, "", "\n".join(self._said))

    async def _execute(self, name: str, text: str) -> None:
        """Who cancels has the command ended, and waits for that: nothing goes on behind a release that is over."""
        where = f"{self._spec.environment}: migrations/{name}"
        assert self._spec.migrations is not None
        stop = Event()
        command = Command(text, self._spec.migrations.timeout, stop, self._say)
        going = asyncio.ensure_future(asyncio.to_thread(self._target.execute, self._revision, self._spec, command))
        try:
            code = await asyncio.shield(going)
        except TargetError as error:
            raise MigrationFailed(f"{where}: {error.what}", error.hint) from error
        except BaseException:
            stop.set()
            await asyncio.wait([going])
            raise
        if code:
            last = next((line for line in reversed(self._said) if line.strip()), "it printed nothing")
            raise MigrationFailed(
                f"{where}: exit code {code}: {last.strip()}",
                "the version that is live serves on; what the command had done before it failed stays: mend it, and "
                "release again. Its output is in the log of this task",
            )

    def _say(self, line: str) -> None:
        self._said.append(line)
        self._log.info(line)

    async def _show(self) -> None:
        change = self._change
        said = "\n".join(self._said) or "(nothing)"
        await acreate_markdown_artifact(
            key=f"migrations-{change.app}-{change.environment}",
            markdown=f"{change.kind} of {change.revision}: {', '.join(change.files)}\n\n```\n{said}\n```",
            description=f"what the migrations of {change.revision} said",
        )


def _words(error: BaseException) -> str:
    return error.what if isinstance(error, HeadwayError) else type(error).__name__
