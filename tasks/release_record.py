"""The release of a flow run: its record and stages in the ledger, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.deployments import arun_deployment
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed

from headway.build.retention import prune
from headway.config import BlueGreen, Settings, StoredSettings, Strategy
from headway.domain import deployments
from headway.domain.errors import Aborted, Expired, HeadwayError, Rejected, Superseded, UsageError
from headway.domain.revision import Artifact, LaunchSpec, Revision
from headway.domain.source import Source
from headway.ledger import Ledger, ReleaseRecord, ReleaseState, StageRecord, StageState
from headway.system.paths import home, ledger_url
from tasks.artifacts import draw_verdict, publish_summary
from tasks.checkout import SETTINGS
from tasks.heartbeat import beating
from tasks.requester import requested_by
from tasks.run_names import rename_run

__all__ = [
    "ReleaseSession",
    "accept",
    "close_release",
    "is_accepted",
    "launch_specs",
    "open_ledger",
    "open_release",
    "run_state",
    "start_release",
    "undelivered",
]

# Cancelling a run raises CancelledError; stopping its process or its worker raises the others.
STOPPED = (asyncio.CancelledError, TerminationSignal, SystemExit, KeyboardInterrupt)


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """Open the ledger for one flow run, and record there that it is executed. Raises ServiceUnavailable."""
    with Ledger.open(ledger_url()) as ledger, beating(ledger, str(flow_run.get_id())):
        yield ledger


class Stage:
    """A running stage. Set `state` when it ends other than passed, and `detail` for the record."""

    def __init__(self) -> None:
        self.state: StageState = "passed"
        self.detail = ""


class ReleaseSession:
    """A release and the ledger that records it, passed to the tasks of its flow run.

    It has slots and no `__dict__`: Prefect then shows `<ReleaseSession>` as a parameter, and stores nothing of it.
    """

    __slots__ = ("ledger", "record")

    def __init__(self, ledger: Ledger, record: ReleaseRecord) -> None:
        self.ledger = ledger
        self.record = record

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Record the start of a stage, and how it ended."""
        stages, stage = self.ledger.stages, Stage()
        stages.start(self.record.id, name)
        try:
            yield stage
        except STOPPED:
            stages.finish(self.record.id, name, "cancelled", "")
            raise
        except BaseException as error:
            stages.finish(self.record.id, name, "failed", _first_line(error))
            raise
        stages.finish(self.record.id, name, stage.state, stage.detail)

    def passed_stage(self, name: str) -> StageRecord | None:
        """The stage, if it has passed in this release before its run was resumed."""
        stages = self.ledger.stages.by_release(self.record.id)
        return next((one for one in stages if one.name == name and one.state in ("passed", "cached")), None)

    def skip_stage(self, name: str, reason: str) -> None:
        """Record a stage that is not needed, or cannot start."""
        self.ledger.stages.start(self.record.id, name)
        self.ledger.stages.finish(self.record.id, name, "skipped", reason)

    def wait_for_person(self, name: str) -> None:
        """Record that the release waits for a decision on this stage; the approval's deadline ends the wait."""
        self.ledger.stages.start(self.record.id, name)
        self.ledger.releases.set_waiting(self.record.id)


@task(name="open release", task_run_name="open release", cache_policy=NO_CACHE)
async def open_release(ledger: Ledger, source: Source, settings: Settings, by: str) -> ReleaseRecord:
    """Record the release and its settings; a run that is resumed gets the release that it recorded before.

    Raises UsageError when that release has ended.
    """
    release = start_release(ledger, settings.app, source, by)
    await rename_run(release)
    ledger.inputs.fix(release.id, SETTINGS, StoredSettings.document(settings))
    return release


def start_release(ledger: Ledger, app: str, source: Source, by: str, *, preview: bool = False) -> ReleaseRecord:
    """Record the release of this flow run, and its commit. Raises UsageError when that release has ended."""
    release = ledger.releases.start(
        app,
        source.repo,
        source.ref,
        flow_run_id=str(flow_run.get_id()),
        requested_by=requested_by(ledger, by),
        preview=preview,
    )
    if not release.open:
        raise UsageError(f"{release.summary}: it has ended and is not continued", "start another release of the commit")
    return ledger.releases.update(
        release.id,
        sha=source.sha,
        tree=source.tree,
        author=source.author,
        subject=source.subject,
        committed_at=source.committed_at,
    )


def launch_specs(
    release: ReleaseSession, settings: Settings, artifact: Artifact, environments: Iterable[str]
) -> list[LaunchSpec]:
    """The launch spec of each environment. A run that is resumed gets the specs that it made before.

    Only the place of the artifact may differ: a bundle is where this machine keeps it.
    """

    def fixed(environment: str) -> LaunchSpec:
        made = settings.launch_spec(environment, artifact, release.record.name)
        stored = release.ledger.inputs.fix(release.record.id, f"launch {environment}", made.model_dump(mode="json"))
        return LaunchSpec.model_validate(stored).model_copy(update={"artifact": artifact})

    return [fixed(environment) for environment in environments]


def is_accepted(release: ReleaseSession, spec: LaunchSpec) -> bool:
    """Whether this release was accepted in the environment, with the revision of this spec."""
    record = release.record
    assert record.sha is not None  # start_release recorded it
    revision = spec.revision(record.app, record.sha)
    return release.ledger.rollouts.is_accepted(record.id, spec.environment, revision.id)


def undelivered(release: ReleaseSession, spec: LaunchSpec) -> Revision | None:
    """Save and return the revision that this release launches; None if it was accepted before the run was resumed."""
    record = release.record
    if is_accepted(release, spec):
        return None
    assert record.sha is not None  # start_release recorded it
    revision = spec.revision(record.app, record.sha)
    release.ledger.revisions.save(revision, spec)
    return revision


@task(name="accept", task_run_name="accept {environment}", cache_policy=NO_CACHE)
async def accept(release: ReleaseSession, environment: str, strategy: Strategy) -> None:
    """Make this revision the live one, which a later rollback can return to.

    The old revision of a blue-green rollout stays warm. A run that is scheduled now will stop it, so that this one can
    end and release the lock. Raises Aborted.
    """
    ledger, app = release.ledger, release.record.app
    done = ledger.rollouts.unfinished(app, environment)
    for rollout in done:
        while command := ledger.commands.take(rollout.id):
            if command.kind == "abort":  # given during the smoke test, or while no step was looking
                raise Aborted(f"{rollout.plan.new} was {command}")
        ledger.rollouts.finish(rollout.id, "done")
    warm = done[-1].plan.replaced if done else None
    if isinstance(strategy, BlueGreen) and strategy.scale_down_delay and warm:
        await arun_deployment(
            deployments.SCALE_DOWN,
            parameters={"app": app, "environment": environment, "revision": warm},
            scheduled_time=datetime.now(UTC) + timedelta(seconds=strategy.scale_down_delay),
            timeout=0,
            as_subflow=False,
        )


@task(name="record", task_run_name="record", cache_policy=NO_CACHE)
async def close_release(release: ReleaseSession, error: BaseException | None = None) -> ReleaseRecord:
    """Record how the release ended, publish its summary, and remove old workspaces and bundles."""
    state, reason = _ending(release, error)
    ledger, closed = release.ledger, release.ledger.releases.finish(release.record.id, state, reason)
    await publish_summary(ledger, closed)
    for rollout in ledger.rollouts.by_release(closed.id):
        if rollout.kind == "release" and rollout.state != "done":
            await draw_verdict(ledger, rollout)
    await asyncio.to_thread(_remove_old_files, ledger)
    return closed


def _remove_old_files(ledger: Ledger) -> None:
    """Free disk space. A failure changes nothing: the next release tries again."""
    try:
        for removed in prune(home(), ledger):
            get_run_logger().info("removed: %s", removed)
    except OSError as error:
        get_run_logger().warning("old workspaces and bundles could not be removed: %s", error)


def run_state(closed: ReleaseRecord, error: BaseException) -> State[ReleaseRecord]:
    """State of a run whose release did not succeed, with the reason first: Cancelled when that was decided.

    Raises the error when it is none of a release: then the state has the traceback.
    """
    message = f"{closed.reason} ({closed.name})"
    if closed.state in ("rejected", "expired", "superseded"):
        return Cancelled(message=message, name=closed.state.capitalize())
    if closed.state == "rolled_back":
        return Failed(message=message, name="Rolled back")
    if closed.state == "failed" and isinstance(error, HeadwayError):
        return Failed(message=message)
    raise error


def _ending(release: ReleaseSession, error: BaseException | None) -> tuple[ReleaseState, str]:
    match error:
        case None:
            return "succeeded", ""
        case Rejected():
            state: ReleaseState = "rejected"
        case Expired():
            state = "expired"
        case Superseded():
            state = "superseded"
        case asyncio.CancelledError():
            return "cancelled", "cancelled"
        case TerminationSignal() | SystemExit() | KeyboardInterrupt():
            return "cancelled", "its process was ended"
        case _:
            state = "rolled_back" if _was_rolled_back(release) else "failed"
    return state, _first_line(error)


def _was_rolled_back(release: ReleaseSession) -> bool:
    rollouts = release.ledger.rollouts.by_release(release.record.id)
    return any(rollout.kind == "rollback" and rollout.state == "done" for rollout in rollouts)


def _first_line(error: BaseException) -> str:
    text = error.what if isinstance(error, HeadwayError) else str(error)
    return (text or type(error).__name__).splitlines()[0]
