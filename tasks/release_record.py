"""What happened, written down: the release and its stages in the ledger, the summary beside the run."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache

from prefect import State, get_run_logger, task
from prefect.artifacts import acreate_image_artifact, acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.deployments import arun_deployment
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled

from headway.build.retention import prune
from headway.config import BlueGreen, Settings, Strategy
from headway.domain.errors import Aborted, Expired, HeadwayError, Rejected, Superseded
from headway.domain.plan import Analyze, Route
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.source import Source
from headway.ledger import Ledger, ReleaseRecord, ReleaseState, RolloutRecord, StageState
from headway.rollout.analysis.plot import draw
from headway.rollout.markdown import release_markdown
from headway.rollout.step_titles import titles
from headway.system.paths import home, ledger_url
from tasks.run_results import once_per_run

__all__ = [
    "accept",
    "close_release",
    "draw_verdict",
    "ledger",
    "open_release",
    "run_state",
    "skip_stage",
    "stage",
    "start_release",
    "undelivered",
    "wait_for_person",
]


# A run that is cancelled, and one whose process is told to end by whoever stops the worker.
STOPPED = (asyncio.CancelledError, TerminationSignal, SystemExit, KeyboardInterrupt)


@cache
def ledger() -> Ledger:
    """This process's ledger, opened when it is first needed."""
    return Ledger.open(ledger_url())


class Stage:
    """A stage that is going on; say here how it ended when it is not plainly passed."""

    def __init__(self) -> None:
        self.state: StageState = "passed"
        self.detail = ""


@contextmanager
def stage(release: ReleaseRecord, name: str) -> Iterator[Stage]:
    """Keep the ledger's word on one stage of a release: started, and how it ended."""
    going_on = Stage()
    ledger().stages.start(release.id, name)
    try:
        yield going_on
    except STOPPED:
        ledger().stages.finish(release.id, name, "cancelled", "")
        raise
    except BaseException as error:
        ledger().stages.finish(release.id, name, "failed", _first_line(error))
        raise
    ledger().stages.finish(release.id, name, going_on.state, going_on.detail)


@task(name="open release", task_run_name="open release", persist_result=True, cache_policy=once_per_run())
async def open_release(source: Source, settings: Settings, by: str) -> ReleaseRecord:
    """Enter the release in the ledger; a run that comes back from a suspension finds the one it had."""
    return start_release(settings.app, source, by)


def start_release(app: str, source: Source, by: str, *, preview: bool = False) -> ReleaseRecord:
    """The release of this run, with the commit that it is of."""
    release = ledger().releases.start(
        app, source.repo, source.ref, flow_run_id=str(flow_run.get_id()), requested_by=by, preview=preview
    )
    return ledger().releases.update(
        release.id,
        sha=source.sha,
        tree=source.tree,
        author=source.author,
        subject=source.subject,
        committed_at=source.committed_at,
    )


def skip_stage(release: ReleaseRecord, name: str, why: str) -> None:
    """A stage that was not asked for, or cannot start."""
    ledger().stages.start(release.id, name)
    ledger().stages.finish(release.id, name, "skipped", why)


def wait_for_person(release: ReleaseRecord, name: str) -> None:
    """The release waits: `headway status` says for whom, and the sweep sees to it that it does not wait for ever."""
    ledger().stages.start(release.id, name)
    ledger().releases.set_waiting(release.id)


def undelivered(release: ReleaseRecord, spec: LaunchSpec) -> Revision | None:
    """The revision this release brings to an environment; None when a run that came back had brought it there
    already.
    """
    assert release.sha is not None  # open_release entered it
    if ledger().rollouts.is_accepted(release.id, spec.environment):
        return None
    revision = spec.revision(release.app, release.sha)
    ledger().revisions.save(revision, spec)
    return revision


@task(name="accept", task_run_name="accept {environment}", cache_policy=NO_CACHE)
async def accept(release: ReleaseRecord, environment: str, strategy: Strategy) -> None:
    """From here on this is the revision that a later rollback of the environment comes back to.

    What was kept warm for it is stopped by a run that is scheduled now: nothing has to wait, and the lock is let go.
    """
    done = ledger().rollouts.unfinished(release.app, environment)
    for rollout in done:
        while order := ledger().commands.take(rollout.id):
            if order.kind == "abort":  # it came while nothing was waited for, or during the smoke test
                raise Aborted(f"{rollout.plan.new} was {order}")
        ledger().rollouts.finish(rollout.id, "done")
    if isinstance(strategy, BlueGreen) and strategy.scale_down_delay and done and done[-1].plan.old:
        await arun_deployment(
            "scale-down/main",
            parameters={"app": release.app, "environment": environment, "revision": done[-1].plan.old},
            scheduled_time=datetime.now(UTC) + timedelta(seconds=strategy.scale_down_delay),
            timeout=0,
            as_subflow=False,
        )


@task(name="record", task_run_name="record", cache_policy=NO_CACHE)
async def close_release(release: ReleaseRecord, error: BaseException | None = None) -> ReleaseRecord:
    """Close the release in the ledger, and leave a summary that one can read in the UI."""
    state, reason = _ending(release, error)
    closed = ledger().releases.finish(release.id, state, reason)
    await acreate_markdown_artifact(
        key=f"release-{closed.app}",
        markdown=release_markdown(
            closed, ledger().stages.by_release(closed.id), ledger().rollouts.user_requests(closed.id)
        ),
        description=closed.name,
    )
    for rollout in ledger().rollouts.by_release(closed.id):
        if rollout.kind == "release" and rollout.state != "done":
            await draw_verdict(rollout)
    await asyncio.to_thread(_tidy)
    return closed


async def draw_verdict(rollout: RolloutRecord) -> None:
    """The picture of what the judge saw, in the UI. One that cannot be drawn is said, and changes nothing."""
    readings = [reading for _, reading in ledger().readings.by_rollout(rollout.id)]
    steps = ledger().rollouts.steps(rollout.id)
    names = dict(titles(rollout.plan))
    judged = [step for step in steps if isinstance(rollout.plan.steps[step.position], Analyze)]
    if not judged:
        return
    try:
        picture = await asyncio.to_thread(
            draw,
            readings,
            canary=rollout.plan.new,
            stable=rollout.plan.old,
            marks=[
                (step.started_at, names[step.position])
                for step in steps
                if isinstance(rollout.plan.steps[step.position], Route)
            ],
            title=f"{rollout.app} {rollout.environment}: {names[judged[-1].position]}: {judged[-1].outcome}",
        )
        await acreate_image_artifact(
            image_url="data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode(),
            key=f"verdict-{rollout.app}-{rollout.environment}",
            description=judged[-1].detail,
        )
    except Exception as error:  # noqa: BLE001  # whatever a library has against these figures
        get_run_logger().warning("the verdict is not drawn: %s: %s", type(error).__name__, error)


def _tidy() -> None:
    """Disk that cannot be freed now is freed after the next release; this one has ended as it has."""
    try:
        for gone in prune(home(), ledger()):
            get_run_logger().info("removed: %s", gone)
    except OSError as error:
        get_run_logger().warning("old workspaces and bundles could not be removed: %s", error)


def run_state(closed: ReleaseRecord, error: BaseException) -> State[ReleaseRecord]:
    """How the run of a release that did not succeed ends: cleanly when somebody decided so, else with its error."""
    if closed.state in ("rejected", "expired", "superseded"):
        return Cancelled(message=f"{closed.name}: {closed.reason}", name=closed.state.capitalize())
    raise error


def _ending(release: ReleaseRecord, error: BaseException | None) -> tuple[ReleaseState, str]:
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
            return "cancelled", "its process was told to end"
        case _:
            went_back = any(
                rollout.kind == "rollback" and rollout.state == "done"
                for rollout in ledger().rollouts.by_release(release.id)
            )
            state = "rolled_back" if went_back else "failed"
    return state, _first_line(error)


def _first_line(error: BaseException) -> str:
    text = error.what if isinstance(error, HeadwayError) else str(error)
    return (text or type(error).__name__).splitlines()[0]
