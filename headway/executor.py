"""Walks a Plan, step by step, on any target: the one place where a decision becomes a change.

Before each step the journal is told, after it the outcome; what dies in between is found there. Steps are idempotent,
so a plan can be walked again from its beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from headway.analysis import Tally, look
from headway.errors import RolloutFailed
from headway.model import (
    Analyze,
    AwaitReady,
    Drain,
    Frozen,
    Launch,
    LaunchSpec,
    Measurements,
    Pause,
    Plan,
    Promote,
    Readiness,
    Retire,
    Revision,
    Route,
    Step,
    Verdict,
)
from headway.ports import Target

__all__ = ["Journal", "Outcome", "Rollout", "take", "walk"]

READY_POLL = 0.1  # seconds; a health check costs the app about as much as a request
ANALYSIS_POLL = 0.5  # seconds; reading the proxy's counters costs it a millisecond


class Outcome(Frozen):
    """How a step went, in one line; an exception is the other way it can end."""

    detail: str = ""
    verdict: Verdict | None = None


class Journal(Protocol):
    """Where steps are written down. Raises LockLost when another writer took the environment over."""

    def started(self, index: int, step: Step) -> None: ...

    def measured(self, index: int, measurements: Measurements) -> None: ...

    def finished(self, index: int, outcome: str, detail: str) -> None: ...


class Rollout:
    """A plan, and all it takes to walk it. `specs` have their secrets resolved: they are never logged or stored."""

    def __init__(
        self,
        app: str,
        plan: Plan,
        target: Target,
        specs: Mapping[str, tuple[Revision, LaunchSpec]],
        journal: Journal,
        on_line: Callable[[str], None],
        progress_deadline: float = 600.0,
    ) -> None:
        self.app = app
        self.plan = plan
        self.target = target
        self.specs = specs
        self.journal = journal
        self.on_line = on_line
        self.progress_deadline = progress_deadline
        self.tally = Tally()  # one for all analyses: the budget is the rollout's


async def walk(rollout: Rollout) -> None:
    """Take every step of the plan in order; the first that fails ends the walk with its exception."""
    for index in range(len(rollout.plan.steps)):
        await take(rollout, index)


async def take(rollout: Rollout, index: int) -> Outcome:
    """Take one step, with a word in the journal before and after."""
    step = rollout.plan.steps[index]
    rollout.journal.started(index, step)
    try:
        outcome = await _perform(rollout, index, step)
    except BaseException as error:
        rollout.journal.finished(index, "failed", f"{type(error).__name__}: {error}")
        raise
    rollout.journal.finished(index, "done", outcome.detail)
    if outcome.detail:
        rollout.on_line(outcome.detail)
    return outcome


async def _perform(rollout: Rollout, index: int, step: Step) -> Outcome:
    target = rollout.target
    match step:
        case Launch():
            revision, spec = rollout.specs[step.revision]
            wanted = spec.model_copy(update={"instances": step.instances})
            await asyncio.to_thread(target.launch, revision, wanted)
        case AwaitReady():
            return await _await_ready(target, rollout.specs[step.revision][0], step)
        case Route():
            await asyncio.to_thread(target.route, rollout.app, step.traffic)
            return Outcome(detail=f"in force: {step.traffic}")
        case Pause():
            await asyncio.sleep(step.seconds)
        case Analyze():
            return await _analyze(rollout, index, step)
        case Drain():
            revision, _ = rollout.specs[step.revision]
            if not await asyncio.to_thread(target.drain, revision, step.deadline):
                return Outcome(detail=f"{revision} still had requests in flight after {step.deadline:g} s")
        case Retire():
            revision, _ = rollout.specs[step.revision]
            await asyncio.to_thread(target.retire, revision, step.keep)
        case Promote():
            return Outcome(detail=f"{step.revision} is the stable revision")
    return Outcome()


async def _await_ready(target: Target, revision: Revision, step: AwaitReady) -> Outcome:
    deadline = time.monotonic() + step.deadline
    readiness = Readiness(wanted=step.instances, ready=0)
    while True:
        readiness = await asyncio.to_thread(target.ready, revision)
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


async def _analyze(rollout: Rollout, index: int, step: Analyze) -> Outcome:
    """A fail is known as soon as there is enough to judge; too little data is waited for, and in the end is no pass."""
    start = await asyncio.to_thread(rollout.target.measure, rollout.app)
    rollout.journal.measured(index, start)
    begun = time.monotonic()
    last = start
    while True:
        await asyncio.sleep(ANALYSIS_POLL)
        now = await asyncio.to_thread(rollout.target.measure, rollout.app)
        rollout.journal.measured(index, now)
        rollout.tally, judgement = look(rollout.tally, step, start, last, now)
        last = now
        elapsed = time.monotonic() - begun
        if judgement.verdict is Verdict.FAIL:
            raise RolloutFailed(
                f"{step.revision}: {judgement.evidence}", "the figures of every moment are in the ledger"
            )
        if judgement.verdict is Verdict.PASS and elapsed >= step.window:
            return Outcome(detail=judgement.evidence, verdict=judgement.verdict)
        if elapsed >= max(step.window, rollout.progress_deadline):
            raise RolloutFailed(
                f"{step.revision}: no verdict after {elapsed:.0f} s: {judgement.evidence}",
                "no data is never a pass: send it traffic, lower analysis.min_requests, or leave analysis out",
            )
