"""The step that judges a revision by its measurements: analyze."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from headway.domain.errors import RolloutFailed, TargetError
from headway.domain.measurements import Measurements, Verdict
from headway.domain.plan import Analyze
from headway.rollout.analysis import Judgement, evaluate
from headway.rollout.context import Outcome, RolloutContext
from headway.rollout.little_traffic import WAYS_OUT
from headway.rollout.monitor import Monitor, monitoring
from headway.rollout.operator_commands import wait

__all__ = ["analyze"]

POLL = 0.5  # seconds; reading the proxy's counters costs it a millisecond


async def analyze(context: RolloutContext, index: int, step: Analyze) -> Outcome:
    """Judge until there is a verdict: a fail ends the step at once, a pass at the end of the window.

    Without a verdict at the end of the window a person is asked, and the step goes on until the deadline.
    """
    async with monitoring(step, context.request_counter, context.sources) as monitor:
        analysis = _Analysis(context, index, step, monitor)
        try:
            while True:
                judgement = await analysis.evaluate()
                if outcome := analysis.conclude(judgement):
                    return outcome
                if command := await wait(context, index, POLL):
                    detail = f"{command}; until then: {judgement.evidence}"
                    return Outcome(detail=detail, verdict=judgement.verdict)
        finally:
            analysis.withdraw_question()


@dataclass
class _Analysis:
    context: RolloutContext
    index: int
    step: Analyze
    monitor: Monitor
    begun: float = field(default_factory=time.monotonic)
    readings: list[Measurements] = field(default_factory=list)
    asked: bool = False

    async def evaluate(self) -> Judgement:
        """Take a reading and judge. An error while measuring is no verdict on the revision."""
        try:
            now = await self.monitor.read()
        except TargetError as error:
            return Judgement(verdict=Verdict.ERROR, evidence=f"nothing can be measured: {error.what}")
        self.context.journal.measured(self.index, now)
        self.context.analysis_reading = now
        self.readings.append(now)
        if len(self.readings) < 2:
            return Judgement(verdict=Verdict.INCONCLUSIVE, evidence="measuring has begun")
        try:
            self.context.tally, judgement = evaluate(self.context.tally, self.step, self.readings)
        except Exception as error:  # noqa: BLE001  # a judge that fails has not judged
            return Judgement(verdict=Verdict.ERROR, evidence=f"the judge failed: {type(error).__name__}: {error}")
        return judgement

    def conclude(self, judgement: Judgement) -> Outcome | None:
        """The step's outcome; None while it goes on. Raises RolloutFailed."""
        elapsed = time.monotonic() - self.begun
        step, context = self.step, self.context
        if judgement.verdict is Verdict.FAIL:
            raise RolloutFailed(f"{step.revision}: {judgement.evidence}", "every reading is in the ledger")
        if judgement.verdict is Verdict.PASS and elapsed >= step.window:
            return Outcome(detail=judgement.evidence, verdict=judgement.verdict)
        if elapsed >= max(step.window, context.progress_deadline) + context.patience:
            raise RolloutFailed(
                f"{step.revision}: no verdict after {elapsed:.0f} s: {judgement.evidence}",
                f"no data is never a pass; {WAYS_OUT}",
            )
        if elapsed >= step.window and not self.asked:
            self.asked = True
            context.journal.waits(f"no verdict yet: {judgement.evidence}; {WAYS_OUT}", blocked=False)
            context.on_line(f"asking a person: no verdict after {elapsed:.0f} s: {judgement.evidence}; {WAYS_OUT}")
        return None

    def withdraw_question(self) -> None:
        if self.asked:
            self.context.journal.waits("")
