"""Walks a Plan, step by step, on any target: the one place where a decision becomes a change.

Before each step the journal is told, after it the outcome; what dies in between is found there. Steps are idempotent,
so a plan can be walked again from its beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ParamSpec, Protocol, TypeVar

from headway.domain.base import Frozen
from headway.domain.errors import Aborted, RolloutFailed, TargetError
from headway.domain.measurements import Measurements, RequestCounts, Verdict
from headway.domain.plan import (
    Analyze,
    AwaitReady,
    Drain,
    Gate,
    Launch,
    OperatorCommand,
    Pause,
    Plan,
    Promote,
    Rehearse,
    Retire,
    Route,
    Step,
    Verify,
)
from headway.domain.ports import MetricSource, Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, InstanceReadiness, Observation, Traffic
from headway.rollout import smoke_tests
from headway.rollout.analysis import Judgement, Tally, look
from headway.rollout.load_generator import Load
from headway.rollout.monitor import Watch, watching
from headway.rollout.request_counter import Meter

__all__ = ["Journal", "Outcome", "Rollout", "take", "walk"]

P = ParamSpec("P")
R = TypeVar("R")
DRAINED = 1.0  # seconds that a drained revision gets once more: for requests that asked for it by name
READY_POLL = 0.1  # seconds; a health check costs the app about as much as a request
ANALYSIS_POLL = 0.5  # seconds; reading the proxy's counters costs it a millisecond
ORDER_POLL = 0.25  # seconds; a read of the ledger takes a millisecond
REHEARSAL = 0.3  # seconds of requests before, between and after the switches of a rehearsal
REHEARSAL_RATE = 100.0  # requests a second


class Outcome(Frozen):
    """How a step went, in one line; an exception is the other way it can end."""

    detail: str = ""
    verdict: Verdict | None = None


class Journal(Protocol):
    """Where steps are written down, and orders come from. Raises LockLost when another writer took over."""

    def started(self, index: int, step: Step) -> None: ...

    def measured(self, index: int, measurements: Measurements) -> None: ...

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None:
        """`users`: what they were answered since the step before."""

    def order(self) -> OperatorCommand | None:
        """What somebody wants of this rollout now; each order is given once.

        Raises Superseded when a newer release is to take its place.
        """

    def waits(self, asks: str, *, stands: bool = True) -> None:
        """A person is asked; it `stands` until then, or may go on by itself. Empty: nobody is asked any more."""


class Rollout:
    """A plan, and all it takes to walk it. `specs` have their secrets resolved: they are never logged or stored.

    An analysis without a verdict by the progress deadline waits `patience` seconds more for a person, then goes back.
    `reading` is the last one before the plan began, so that no request between two rollouts goes uncounted.
    """

    def __init__(
        self,
        app: str,
        plan: Plan,
        target: Target,
        specs: Mapping[str, tuple[Revision, LaunchSpec]],
        journal: Journal,
        on_line: Callable[[str], None],
        progress_deadline: float = 600.0,
        *,
        patience: float = 0.0,
        sources: Mapping[str, MetricSource] = MappingProxyType({}),
        reading: Measurements | None = None,
    ) -> None:
        self.app = app
        self.plan = plan
        self.target = target
        self.specs = specs
        self.journal = journal
        self.on_line = on_line
        self.progress_deadline = progress_deadline
        self.patience = patience
        self.sources = sources
        self.reading = reading
        self.meter = Meter(target, app)
        self.looked: Measurements | None = None
        self.promoted: OperatorCommand | None = None
        self.skip: OperatorCommand | None = None
        self.tally = Tally()  # one for all analyses: the budget is the rollout's


async def walk(rollout: Rollout) -> None:
    """Take every step of the plan in order; the first that fails ends the walk with its exception."""
    for index in range(len(rollout.plan.steps)):
        await take(rollout, index)


async def take(rollout: Rollout, index: int) -> Outcome:
    """Take one step, with a word in the journal before and after."""
    step = rollout.plan.steps[index]
    rollout.journal.started(index, step)
    if rollout.reading is None:
        rollout.reading = await _count(rollout, index)
    try:
        outcome = await _perform(rollout, index, step)
    except BaseException as error:
        users = await asyncio.shield(_users(rollout, index))
        rollout.journal.finished(index, "failed", f"{type(error).__name__}: {error}", users)
        raise
    rollout.journal.finished(index, "done", outcome.detail, await _users(rollout, index))
    if outcome.detail:
        rollout.on_line(outcome.detail)
    return outcome


async def _count(rollout: Rollout, index: int) -> Measurements | None:
    """A reading between steps; a step goes on without one."""
    if Capability.METRICS not in rollout.target.capabilities:
        return None
    try:
        reading = await asyncio.to_thread(rollout.meter.read)
    except TargetError as error:
        rollout.on_line(f"requests are not counted: {error.what}")
        return None
    rollout.journal.measured(index, reading)
    return reading


async def _users(rollout: Rollout, index: int) -> RequestCounts | None:
    """What users were answered since the last reading. An analysis has its own: one more would be one more look."""
    before, now = rollout.reading, rollout.looked
    rollout.looked = None
    if now is None:
        now = await _count(rollout, index)
    if now is None:
        return None
    rollout.reading = now
    if before is None or now.edge is None or before.edge is None:
        return None
    return now.edge.since(before.edge)


def _keep_skip(rollout: Rollout, index: int) -> None:
    """Where nothing is waited for there is nothing to leave out: a skip is kept until its step looks for it."""
    order = _ordered(rollout, index)
    rollout.skip = order if order and order.kind == "skip" else None


async def _perform(rollout: Rollout, index: int, step: Step) -> Outcome:
    _keep_skip(rollout, index)
    target = rollout.target
    match step:
        case Pause() | Gate() | Analyze() if rollout.promoted:
            return Outcome(detail=f"left out: {rollout.promoted}")
        case Launch():
            revision, spec = rollout.specs[step.revision]
            wanted = spec.model_copy(update={"instances": step.instances})
            await _change(target.launch, revision, wanted)
        case AwaitReady():
            return await _await_ready(rollout, index, rollout.specs[step.revision][0], step)
        case Route():
            await _change(target.route, rollout.app, step.traffic)
            return Outcome(detail=_in_force(step.traffic, await asyncio.to_thread(target.observe, rollout.app)))
        case Pause():
            return Outcome(detail=await _wait(rollout, index, step.seconds) or "")
        case Gate():
            return await _ask(rollout, index, step)
        case Verify():
            return await _verify(rollout, step)
        case Analyze():
            return await _analyze(rollout, index, step)
        case Rehearse():
            return await _rehearse(rollout, step)
        case Drain():
            revision, _ = rollout.specs[step.revision]
            if not await asyncio.to_thread(target.drain, revision, step.deadline):
                return Outcome(detail=f"{revision} still had requests in flight after {step.deadline:g} s")
        case Retire():
            revision, _ = rollout.specs[step.revision]
            await asyncio.to_thread(target.retire, revision, step.keep, DRAINED if step.drained else None)
        case Promote():
            return Outcome(detail=f"{step.revision} is the stable revision")
    return Outcome()


def _in_force(wanted: Traffic, seen: Observation) -> str:
    """What is so now; it may be as near as the platform can get to what was wanted."""
    told = f"in force: {seen.traffic}" + (f" at {seen.preview_url}" if wanted.preview else "")
    return told if seen.traffic.weights == wanted.weights else f"{told}: the nearest to {wanted} that can be had"


def _ordered(rollout: Rollout, index: int) -> OperatorCommand | None:
    """A skip of this step, or a promotion. Raises Aborted, or Superseded."""
    order, rollout.skip = rollout.skip or rollout.journal.order(), None
    if order is None:
        return None
    if order.kind == "abort":
        raise Aborted(f"{rollout.plan.new} was {order}")
    if order.kind == "promote":
        rollout.promoted = order
    elif order.position not in (None, index):
        rollout.on_line(f"{order}: too late, that step is over")
        return None
    return order


async def _wait(rollout: Rollout, index: int, seconds: float) -> str:
    """Wait; returns at once, and who it was, when somebody has it left out."""
    end = time.monotonic() + seconds
    while True:
        if order := _ordered(rollout, index):
            return str(order)
        left = end - time.monotonic()
        if left <= 0:
            return ""
        await asyncio.sleep(min(ORDER_POLL, left))


async def _ask(rollout: Rollout, index: int, step: Gate) -> Outcome:
    rollout.journal.waits(step.asks)
    rollout.on_line(f"waiting for a person: {step.asks}")
    try:
        by = await _wait(rollout, index, step.deadline)
    finally:
        rollout.journal.waits("")
    if not by:
        raise RolloutFailed(f"nobody decided within {step.deadline / 3600:g} h: {step.asks}", "release it again")
    return Outcome(detail=by)


async def _await_ready(rollout: Rollout, index: int, revision: Revision, step: AwaitReady) -> Outcome:
    deadline = time.monotonic() + step.deadline
    readiness = InstanceReadiness(wanted=step.instances, ready=0)
    while True:
        _keep_skip(rollout, index)  # there is nothing to leave out here, but it can be aborted
        readiness = await asyncio.to_thread(rollout.target.ready, revision)
        if readiness.ready >= step.instances:
            return Outcome(detail=f"{readiness.ready} of {step.instances} ready")
        so_far = f"{revision}: {readiness.ready} of {step.instances} ready"
        if readiness.failed:
            raise RolloutFailed(
                f"{so_far}, and the rest will not be: {readiness.detail}",
                "see what it says: headway logs APP ENV",
            )
        if time.monotonic() >= deadline:
            raise RolloutFailed(
                f"{so_far} after {step.deadline:g} s: {readiness.detail}",
                "see what it says with headway logs, or allow it more time with health.startup",
            )
        await asyncio.sleep(READY_POLL)


async def _verify(rollout: Rollout, step: Verify) -> Outcome:
    revision, spec = rollout.specs[step.revision]
    url = (await asyncio.to_thread(rollout.target.observe, rollout.app)).preview_url
    if url is None:
        raise RolloutFailed(f"{revision}: the target shows no preview", "was it routed to?")
    secrets = [str(spec.env[name]) for name in spec.secrets]
    report = await smoke_tests.run(
        url,
        step.probes,
        revision,
        environment=spec.environment,
        on_line=rollout.on_line,
        secrets=secrets,
        headers=rollout.target.request_headers,
    )
    return Outcome(detail=f"{report.probes} probes passed on {url}")


async def _analyze(rollout: Rollout, index: int, step: Analyze) -> Outcome:
    """A fail is known as soon as there is enough to judge. What is no verdict is waited for, then a person is asked."""
    begun = time.monotonic()
    readings: list[Measurements] = []
    asked = False
    async with watching(rollout.app, step, rollout.target, rollout.meter, rollout.sources) as watch:
        try:
            while True:
                judgement = await _look(rollout, index, step, watch, readings)
                elapsed = time.monotonic() - begun
                if judgement.verdict is Verdict.FAIL:
                    raise RolloutFailed(
                        f"{step.revision}: {judgement.evidence}", "the figures of every moment are in the ledger"
                    )
                if judgement.verdict is Verdict.PASS and elapsed >= step.window:
                    return Outcome(detail=judgement.evidence, verdict=judgement.verdict)
                if elapsed >= max(step.window, rollout.progress_deadline) + rollout.patience:
                    raise RolloutFailed(
                        f"{step.revision}: no verdict after {elapsed:.0f} s: {judgement.evidence}",
                        "no data is never a pass: send it traffic, declare synthetic requests, lower "
                        "analysis.min_requests, or leave analysis out",
                    )
                if elapsed >= step.window and not asked:
                    asked = True
                    rollout.journal.waits(f"no verdict yet: {judgement.evidence}", stands=False)
                    rollout.on_line(f"asking a person: no verdict after {elapsed:.0f} s: {judgement.evidence}")
                if by := await _wait(rollout, index, ANALYSIS_POLL):
                    return Outcome(detail=f"{by}; until then: {judgement.evidence}", verdict=judgement.verdict)
        finally:
            if asked:
                rollout.journal.waits("")


async def _look(rollout: Rollout, index: int, step: Analyze, watch: Watch, readings: list[Measurements]) -> Judgement:
    """Nothing that goes wrong with looking is a verdict on the revision."""
    try:
        now = await watch.read()
    except TargetError as error:
        return Judgement(verdict=Verdict.ERROR, evidence=f"nothing can be measured: {error.what}")
    rollout.journal.measured(index, now)
    rollout.looked = now
    readings.append(now)
    if len(readings) < 2:
        return Judgement(verdict=Verdict.INCONCLUSIVE, evidence="measuring has begun")
    try:
        rollout.tally, judgement = look(rollout.tally, step, readings)
    except Exception as error:  # noqa: BLE001  # a judge that fails has not judged
        return Judgement(verdict=Verdict.ERROR, evidence=f"the judge failed: {type(error).__name__}: {error}")
    return judgement


async def _rehearse(rollout: Rollout, step: Rehearse) -> Outcome:
    """Requests of our own are counted, whatever users send: a rehearsal without requests would drop none."""
    url = (await asyncio.to_thread(rollout.target.observe, rollout.app)).url
    assert url is not None  # something is live: it would be no way back otherwise
    path = next(iter(rollout.specs.values()))[1].health.path
    load = Load(url, paths=[path], rate=REHEARSAL_RATE, headers=rollout.target.request_headers)
    seconds = await _change(_there_and_back, rollout.target, rollout.app, step, load)
    told = f"the way back took {1000 * seconds:.0f} ms, {load.failed} of {load.sent} requests failed"
    if load.failed or seconds > step.within:
        failures = f" ({load.failures[0]})" if load.failures else ""
        raise RolloutFailed(
            f"{step.low} was not promoted: {told}{failures}", f"it may take {step.within:g} s and drop nothing"
        )
    return Outcome(detail=told)


def _there_and_back(target: Target, app: str, step: Rehearse, load: Load) -> float:
    """Seconds that the way back took."""
    with load:
        time.sleep(REHEARSAL)
        target.route(app, step.low)
        time.sleep(REHEARSAL)
        begun = time.monotonic()
        target.route(app, step.back)
        seconds = time.monotonic() - begun
        time.sleep(REHEARSAL)
    return seconds


async def _change(verb: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """A change that has begun is not abandoned: a thread cannot be stopped, and the way back would be overtaken by it.

    Whoever cancels waits for it; the target's verbs have deadlines.
    """
    going = asyncio.ensure_future(asyncio.to_thread(verb, *arguments, **named))
    try:
        return await asyncio.shield(going)
    except BaseException:
        await asyncio.wait([going])
        raise
