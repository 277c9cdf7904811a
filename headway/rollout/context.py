"""What the steps of a rollout share: the target, the journal, the readings, the operator's commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headway.domain.base import Frozen
from headway.domain.measurements import Measurements, RequestCounts, Verdict
from headway.domain.plan import OperatorCommand, Plan, Step
from headway.domain.ports import MetricSource, Target
from headway.domain.revision import LaunchSpec, Revision
from headway.ledger import RolloutRecord
from headway.rollout.analysis import Tally
from headway.rollout.own_requests import OwnRequests
from headway.rollout.request_counter import RequestCounter

__all__ = ["Journal", "Outcome", "RolloutContext"]


class Outcome(Frozen):
    """How a step ended, in one line. A step that fails raises instead."""

    detail: str = ""
    verdict: Verdict | None = None


class Journal(Protocol):
    """Records steps and delivers operator commands. Raises LockLost when another writer took over."""

    def started(self, index: int, step: Step) -> None: ...

    def measured(self, index: int, measurements: Measurements) -> None: ...

    def finished(self, index: int, outcome: str, detail: str, users: RequestCounts | None) -> None:
        """`users`: responses to users since the step before."""

    def order(self) -> OperatorCommand | None:
        """The next operator command; each one is delivered once.

        Raises Superseded when a newer release takes this one's place.
        """

    def waits(self, question: str, *, blocked: bool = True) -> None:
        """Record a question to a person; empty clears it. With `blocked`, the rollout waits for the answer."""


@dataclass(eq=False, kw_only=True)
class RolloutContext:
    """A rollout and everything that its steps need. `specs` have their secrets resolved: never log or store them.

    An analysis without a verdict by the progress deadline waits `patience` seconds more for a person, then fails.
    `reading` is the last one before the first step, so that requests between two rollouts are counted.
    """

    record: RolloutRecord
    target: Target
    specs: Mapping[str, tuple[Revision, LaunchSpec]]
    journal: Journal
    on_line: Callable[[str], None]
    progress_deadline: float = 600.0
    patience: float = 0.0
    sources: Mapping[str, MetricSource] = field(default_factory=dict)
    reading: Measurements | None = None
    own: OwnRequests = field(default_factory=OwnRequests)  # one for a rollout, its smoke tests and its rollback
    request_counter: RequestCounter = field(init=False)
    analysis_reading: Measurements | None = field(default=None, init=False)  # the last one of the present step
    promoted: OperatorCommand | None = field(default=None, init=False)
    skip: OperatorCommand | None = field(default=None, init=False)
    tally: Tally = field(default_factory=Tally, init=False)  # one for all analyses: the error budget is the rollout's

    def __post_init__(self) -> None:
        self.request_counter = RequestCounter(self.target, self.app, self.own)

    @property
    def app(self) -> str:
        return self.record.app

    @property
    def plan(self) -> Plan:
        return self.record.plan
