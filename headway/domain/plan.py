"""Plans and their steps. Data: print them, store them, execute them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from headway.domain.base import Frozen
from headway.domain.traffic import Traffic

__all__ = [
    "Analyze",
    "AwaitReady",
    "Comparison",
    "Condition",
    "Drain",
    "Gate",
    "Launch",
    "MetricLimit",
    "OperatorCommand",
    "Pause",
    "Plan",
    "Probe",
    "Promote",
    "Rehearse",
    "Retire",
    "Route",
    "Step",
    "Synthetic",
    "Verify",
]


class Condition(Frozen):
    """An absolute limit such as `success_rate >= 99` (percent) or `p99 <= 0.5` (seconds)."""

    metric: Literal["success_rate", "p50", "p99"]
    op: Literal[">=", "<="]
    limit: float

    def __str__(self) -> str:
        if self.metric == "success_rate":
            return f"success_rate {self.op} {self.limit:g} %"
        return f"{self.metric} {self.op} {self.limit * 1000:g} ms"


class Launch(Frozen):
    """Run at least `instances` instances of the revision."""

    kind: Literal["launch"] = "launch"
    revision: str
    instances: int

    def __str__(self) -> str:
        return f"launch {self.instances} of {self.revision}"


class AwaitReady(Frozen):
    """Wait until `instances` instances of the revision are ready, at most `deadline` seconds."""

    kind: Literal["await_ready"] = "await_ready"
    revision: str
    instances: int
    deadline: float

    def __str__(self) -> str:
        return f"await {self.instances} ready of {self.revision}, at most {self.deadline:g} s"


class Route(Frozen):
    """Put this traffic in force, atomically."""

    kind: Literal["route"] = "route"
    traffic: Traffic

    def __str__(self) -> str:
        return f"route {self.traffic}"


class Pause(Frozen):
    """Wait `seconds` before the next step."""

    kind: Literal["pause"] = "pause"
    seconds: float

    def __str__(self) -> str:
        return f"pause {self.seconds:g} s"


class Gate(Frozen):
    """Wait for a person, at most `deadline` seconds: promote, skip or abort."""

    kind: Literal["gate"] = "gate"
    asks: str = Field(description="what is to be decided, a few words")
    deadline: float

    def __str__(self) -> str:
        return f"wait for a person: {self.asks}, at most {self.deadline / 3600:g} h"


class OperatorCommand(Frozen):
    """Command of a person to a running rollout.

    `skip` leaves out the step that is going on, `promote` every pause, gate and analysis from now on,
    `abort` rolls back.
    """

    kind: Literal["promote", "skip", "abort"]
    by: str
    reason: str = ""
    position: int | None = Field(default=None, description="the step that was going on; a skip is for that one alone")

    def __str__(self) -> str:
        word = {"promote": "promoted", "skip": "skipped", "abort": "aborted"}[self.kind]
        return f"{word} by {self.by}" + (f": {self.reason}" if self.reason else "")


class Probe(Frozen):
    """One request and its expected answer. Times in seconds."""

    method: str
    path: str
    headers: dict[str, str] = Field(default_factory=dict)
    body: str | None = None
    json_body: JsonValue = None
    expect: int = 200
    expect_json: dict[str, JsonValue] | None = None
    expect_text: str | None = None
    within: float | None = None
    version: bool = False
    deadline: float = 30.0


class Verify(Frozen):
    """Run smoke tests against the revision on the preview route."""

    kind: Literal["verify"] = "verify"
    revision: str
    probes: tuple[Probe, ...]

    def __str__(self) -> str:
        return f"verify {self.revision} through the preview: {len(self.probes)} probes"


class Synthetic(Frozen):
    """Synthetic requests, `rate` per second, sent while there is less real traffic than that."""

    requests: tuple[Probe, ...]
    rate: float


class MetricLimit(Frozen):
    """A limit on the value of a metric source. It fails after it was exceeded for `lasting` seconds."""

    name: str
    source: str = Field(description="the metric source block, as type/name")
    query: str
    op: Literal[">=", "<="]
    limit: float
    lasting: float

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit:g}"


class Comparison(Frozen):
    """Parameters of the comparison of a revision with the stable one under the same traffic. Shares, not percent."""

    stable: str
    budget: float = Field(description="chance of a false alarm, at most, over the whole rollout")
    ignore_below: float = Field(default=0.0, description="an error rate below this is never worse")
    ignore_slower: float = Field(default=0.25, description="a version slower by no more than this is not worse")

    def __str__(self) -> str:
        return f"no worse than {self.stable}"


class Analyze(Frozen):
    """Watch the revision for `window` seconds and judge it; a Fail is known as soon as the counts show it."""

    kind: Literal["analyze"] = "analyze"
    revision: str
    window: float
    conditions: tuple[Condition, ...]
    min_requests: int = Field(description="with fewer requests than this the verdict is inconclusive")
    against: Comparison | None = None
    metrics: tuple[MetricLimit, ...] = ()
    synthetic: Synthetic | None = None
    preview: bool = Field(default=False, description="the revision is in the preview: all its requests are synthetic")
    counted_by: str = Field(default="", description="what counts the requests that it is judged by")
    startup: float = Field(default=0.0, description="seconds in which an instance that replaces another may start")
    at_least: int | None = Field(default=None, description="instances that an autoscaler may leave; None: all of them")

    @property
    def limits(self) -> tuple[Condition | MetricLimit | Comparison, ...]:
        """Everything that the revision is judged by. Without any, no verdict is possible."""
        return (*self.conditions, *self.metrics, *([self.against] if self.against else []))

    @property
    def needs_counts(self) -> bool:
        """Whether it is judged by its requests, and not by metric sources alone."""
        return bool(self.conditions or self.against)

    def __str__(self) -> str:
        where = " in the preview" if self.preview else ""
        counted = f"; requests counted by {self.counted_by}" if self.counted_by else ""
        return f"analyze {self.revision}{where} for {self.window:g} s: {', '.join(map(str, self.limits))}{counted}"


class Rehearse(Frozen):
    """Rehearse the rollback: switch to `low` and back to `back` while requests are counted."""

    kind: Literal["rehearse"] = "rehearse"
    low: Traffic
    back: Traffic
    within: float = Field(description="seconds that the rollback may take")

    def __str__(self) -> str:
        return f"rehearse the rollback to {self.back}, within {self.within:g} s"


class Promote(Frozen):
    """Make the revision the stable one. A failure before this step rolls back."""

    kind: Literal["promote"] = "promote"
    revision: str

    def __str__(self) -> str:
        return f"promote {self.revision}"


class Drain(Frozen):
    """Wait until the revision has no request in flight, at most `deadline` seconds."""

    kind: Literal["drain"] = "drain"
    revision: str
    deadline: float

    def __str__(self) -> str:
        return f"drain {self.revision}, at most {self.deadline:g} s"


class Retire(Frozen):
    """Stop instances of the revision, each after its requests have finished, until `keep` are left."""

    kind: Literal["retire"] = "retire"
    revision: str
    keep: int = 0
    drained: bool = Field(default=False, description="a Drain came before: what is in flight has had its time")

    def __str__(self) -> str:
        return f"retire {self.revision}" + (f" down to {self.keep}" if self.keep else "")


Step = Annotated[
    Launch | AwaitReady | Route | Pause | Gate | Verify | Analyze | Rehearse | Promote | Drain | Retire,
    Field(discriminator="kind"),
]


class Plan(Frozen):
    """The steps of a rollout, as data: print it, store it, execute it."""

    strategy: str
    new: str = Field(description="revision id that is live afterwards")
    old: str | None = Field(description="revision id that was live before")
    steps: tuple[Step, ...]

    @property
    def replaced(self) -> str | None:
        """The old revision; None when there was none, or when it is the new one."""
        return self.old if self.old != self.new else None
