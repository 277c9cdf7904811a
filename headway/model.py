"""The nouns: what a release is made of. Frozen, comparable, serialisable, free of I/O.

PushEvent -> ReleaseRequest -> Source -> CheckReport -> Artifact -> Rollout -> SmokeReport -> Approval -> Release
"""

from __future__ import annotations

import difflib
import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "Analyze",
    "Artifact",
    "Autoscale",
    "AwaitReady",
    "Bucket",
    "Capability",
    "CheckReport",
    "Comparison",
    "Condition",
    "Counts",
    "Coverage",
    "Difference",
    "Drain",
    "Failure",
    "Gate",
    "HeaderRule",
    "Health",
    "Instance",
    "Launch",
    "LaunchSpec",
    "Manifest",
    "Measurements",
    "MetricLimit",
    "Migrations",
    "Observation",
    "Order",
    "Pause",
    "Plan",
    "Probe",
    "Probing",
    "Promote",
    "Readiness",
    "Rehearse",
    "Remembered",
    "Retire",
    "Revision",
    "Route",
    "Sample",
    "SecretRef",
    "SmokeReport",
    "Source",
    "Step",
    "Synthetic",
    "Traffic",
    "Verdict",
    "Verify",
]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what is released ------------------------------------------------------------------------------------------


class Source(Frozen):
    """One commit of one repository, laid out in a workspace of its own."""

    repo: str = Field(description="path or URL it was fetched from")
    ref: str = Field(description="branch, tag or sha as it was asked for")
    sha: str = Field(pattern="^[0-9a-f]{40}$", description="the commit; nothing downstream looks at the ref again")
    tree: str = Field(pattern="^[0-9a-f]{40}$", description="git tree of the commit")
    author: str = Field(description='commit author, "Name <mail>"')
    subject: str = Field(description="first line of the commit message")
    committed_at: datetime = Field(description="commit time, with time zone")
    workspace: str = Field(description="absolute path of the checked-out tree; empty: there is none")
    trusted: bool = Field(default=True, description="False: from a fork; what it runs is told nothing of ours")

    @property
    def public_repo(self) -> str:
        """The repository, without the password that its URL may have."""
        url = urlsplit(self.repo)
        return (
            urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2])) if url.scheme and url.netloc else self.repo
        )


class Artifact(Frozen):
    """What was built once and is promoted everywhere, named by its content."""

    kind: Literal["bundle", "image"] = "bundle"
    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    location: str = Field(description="bundle: absolute path of the unpacked, read-only tree; image: repository@digest")
    size: int = Field(ge=0, description="bytes")


class SecretRef(Frozen):
    """The name of a secret, as `!secret shop-prod/database-url` in headway.yaml.

    Its value is never part of the model.
    """

    secret: str


class Probing(Frozen):
    """How often a platform that asks by itself does it. Times in seconds."""

    period: float
    failures: int = Field(ge=1, description="answers in a row that have to be wrong before it counts")
    delay: float = Field(default=0.0, description="after the start of an instance")


class Health(Frozen):
    """How an instance is asked whether it can serve. Times in seconds."""

    path: str = "/health"
    timeout: float = 2.0
    startup: float = Field(default=60.0, description="an instance that is not ready after this many seconds failed")
    startup_probe: Probing = Field(
        default=Probing(period=5, failures=1), description="`failures` follow from `startup`"
    )
    readiness_probe: Probing = Probing(period=10, failures=2)
    liveness_probe: Probing = Probing(period=30, failures=3, delay=10)


class Migrations(Frozen):
    """How the database follows the code: commands that run as the app would. Times in seconds."""

    apply: str
    check: str | None = None
    revert: str | None = None
    kind: Literal["detect", "expand", "contract"] = "detect"
    files: tuple[str, ...] = Field(default=(), description="patterns of the migrations in the repository")
    timeout: float = 600.0
    rollback_window: float = 86400.0


class Manifest(Frozen):
    """One object that the app's repository has for Kubernetes, as it is written there."""

    source: str = Field(description="file and document, such as `k8s/web.yaml#2`")
    content: dict[str, JsonValue]


class Autoscale(Frozen):
    """How many instances of the revision that serves there may be, and what decides."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)
    cpu: int = Field(ge=1, description="percent of the requested processor time that instances use on average")


class LaunchSpec(Frozen):
    """All a target needs to run one revision; stored with the revision, so that it can be run again years later."""

    environment: str
    target: str = Field(default="", description="the target block it runs on, as type/name")
    artifact: Artifact
    run: str = Field(
        default="", description="shell command; gets PORT and, as HEADWAY_*, who it is; empty: the image's own"
    )
    release: str = Field(default="", description="name of the release that launched it")
    cpu: float | None = Field(default=None, gt=0, description="processor cores an instance may use")
    memory: int | None = Field(default=None, gt=0, description="bytes an instance may use")
    instances: int = Field(default=1, ge=1)
    autoscale: Autoscale | None = Field(default=None, description="None: as many as `instances`, always")
    env: dict[str, str | SecretRef] = Field(default_factory=dict)
    secrets: tuple[str, ...] = Field(default=(), description="variables of `env` that were a SecretRef, now resolved")
    health: Health = Health()
    port: int | None = Field(default=None, description="public port of the proxy; None: the target keeps one per app")
    preview_port: int | None = Field(default=None, description="port of the proxy that shows what is not public yet")
    stop_grace: float = Field(default=10.0, description="seconds between SIGTERM and SIGKILL")
    drain: float = Field(default=30.0, description="seconds that requests in flight may take to finish")
    detailed: str | None = Field(default=None, description="path where the app says how what it depends on is")
    migrations: Migrations | None = None
    manifests: tuple[Manifest, ...] = Field(default=(), description="what the app has for Kubernetes, to be completed")

    def configuration_hash(self) -> str:
        """First 12 hex digits of the sha256 of what the app sees: command, environment, health, limits, manifests.

        Not the instance count.
        """
        seen = self.model_dump_json(include={"environment", "run", "env", "health", "cpu", "memory"})
        seen += "".join(one.model_dump_json(include={"content"}) for one in self.manifests)
        return hashlib.sha256(seen.encode()).hexdigest()[:12]

    def revision(self, app: str, sha: str) -> Revision:
        """The revision of `app` that this is when it was built from commit `sha`."""
        return Revision(app=app, sha=sha, digest=self.artifact.digest, configuration=self.configuration_hash())


class Revision(Frozen):
    """One app version on one target: the unit that is launched, routed to and retired."""

    app: str
    sha: str = Field(pattern="^[0-9a-f]{40}$")
    digest: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    configuration: str = Field(description="configuration hash, see LaunchSpec.configuration_hash")

    @property
    def id(self) -> str:
        """Short and unique within an app, such as `3f2a9c1-5be01f`: commit, then artifact and configuration."""
        mixed = hashlib.sha256(f"{self.digest}{self.configuration}".encode()).hexdigest()
        return f"{self.sha[:7]}-{mixed[:6]}"

    def __str__(self) -> str:
        return self.id


# --- checks and smoke ------------------------------------------------------------------------------------------


class Failure(Frozen):
    """One failed test or probe, by name and with its message."""

    name: str
    message: str


class Coverage(Frozen):
    """Lines covered of lines that count."""

    covered: int = Field(ge=0)
    lines: int = Field(ge=0)

    @property
    def percent(self) -> float:
        return 100.0 * self.covered / self.lines if self.lines else 100.0


class CheckReport(Frozen):
    """How one check went."""

    name: str
    passed: bool
    seconds: float
    tests: int | None = Field(default=None, description="tests run, when the check reports them")
    failures: tuple[Failure, ...] = ()
    coverage: Coverage | None = None
    message: str = Field(default="", description="why it did not pass, one line")
    cached_from: str | None = Field(default=None, description="the release it passed in, when it was not run again")


class SmokeReport(Frozen):
    """What the deployed environment answered, through its own proxy."""

    environment: str
    url: str
    probes: int
    attempts: int
    seconds: float


# --- what runs where -------------------------------------------------------------------------------------------


class Capability(StrEnum):
    """What a target can do. A strategy that needs more than its target has is refused at plan time."""

    WEIGHTED_ROUTING = "weighted routing"
    HEADER_ROUTING = "header routing"
    ATOMIC_SWITCH = "atomic switch"
    INSTANCES = "instances"
    LOGS = "logs"
    METRICS = "metrics"
    PREVIEW = "preview route"
    SESSIONS = "sticky users"


class Difference(Frozen):
    """What a launch would change in one thing on the platform. Without the values of secrets."""

    name: str = Field(description="what it is called there, such as `ConfigMap shop-config`")
    now: str = Field(description="how it is, as text; empty: it is not there")
    then: str = Field(description="how it would be; empty: it would be removed")

    @property
    def unified(self) -> list[str]:
        """The lines of a unified diff; none when nothing changes."""
        before, after = (self.name if text else "/dev/null" for text in (self.now, self.then))
        return list(
            difflib.unified_diff(
                self.now.splitlines(), self.then.splitlines(), before, after, "now", "then", lineterm=""
            )
        )


class HeaderRule(Frozen):
    """Requests with exactly this header go to this revision, whatever the weights are."""

    name: str
    value: str
    revision: str


class Traffic(Frozen):
    """Who answers: revision id -> weight in percent. Sums to 100, or is empty when nothing is live."""

    weights: dict[str, int] = Field(default_factory=dict)
    headers: tuple[HeaderRule, ...] = ()
    sticky: bool = Field(default=False, description="a user stays with a revision; a rising weight moves nobody back")
    preview: str | None = Field(default=None, description="the revision that the preview port shows")

    @model_validator(mode="after")
    def _sums_to_100(self) -> Traffic:
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError(f"a weight is negative: {self.weights}")
        if self.weights and sum(self.weights.values()) != 100:
            raise ValueError(f"weights sum to {sum(self.weights.values())}, not 100: {self.weights}")
        return self

    @classmethod
    def all_to(cls, revision: Revision | str) -> Traffic:
        return cls(weights={str(revision): 100})

    def without(self, revision: Revision | str) -> Traffic:
        """The same for everybody else, when this revision, which has no weight, is gone."""
        gone = str(revision)
        return Traffic(
            weights={one: weight for one, weight in self.weights.items() if one != gone},
            headers=tuple(rule for rule in self.headers if rule.revision != gone),
            sticky=self.sticky,
            preview=None if self.preview == gone else self.preview,
        )

    def __str__(self) -> str:
        shares = [f"{revision} {weight} %" for revision, weight in self.weights.items() if weight]
        shares += [f"{rule.revision} for {rule.name}: {rule.value}" for rule in self.headers]
        shares += [f"{self.preview} in the preview"] if self.preview else []
        return ", ".join(shares) or "nothing"


class Instance(Frozen):
    """One running copy of a revision."""

    name: str
    address: str = Field(description="host:port")
    ready: bool
    detail: str = Field(default="", description="why it is not ready, one line")
    run: str | None = Field(default=None, description="another one each time it is started, if the target knows")


class Observation(Frozen):
    """What is live now, as read from the platform."""

    app: str
    url: str | None = Field(description="where the app answers; None before the first launch")
    preview_url: str | None = Field(default=None, description="where the revision in the preview answers")
    traffic: Traffic
    instances: dict[str, tuple[Instance, ...]] = Field(
        description="revision id -> its instances; retired ones are gone"
    )

    def ready(self, revision: Revision | str) -> int:
        return sum(instance.ready for instance in self.instances.get(str(revision), ()))

    @property
    def lines(self) -> tuple[str, ...]:
        """All of it, in words for people."""
        where = [f"at {self.url}"] if self.url else []
        running = [
            f"{one.name} {one.address} {'ready' if one.ready else f'not ready: {one.detail}'}"
            for instances in self.instances.values()
            for one in instances
        ]
        return (f"traffic: {self.traffic}", *where, *(running or ["no instances"]))

    @property
    def live(self) -> str | None:
        """The revision that gets all traffic, if there is one."""
        return next((revision for revision, weight in self.traffic.weights.items() if weight == 100), None)


class Remembered(Frozen):
    """What a platform itself can say of an app: all that it takes to go on when nobody else knows anything."""

    token: int = Field(default=0, description="the highest fencing token that was claimed")
    revisions: tuple[tuple[Revision, LaunchSpec], ...] = Field(
        default=(), description="those that can come back, in the order in which they went live; what is live is last"
    )


class Readiness(Frozen):
    """How far a revision's instances are."""

    wanted: int
    ready: int
    failed: bool = Field(default=False, description="it will not get there: waiting longer is pointless")
    detail: str = ""


class Bucket(NamedTuple):
    """Part of a latency histogram: so many requests took from `lower` to `upper` seconds."""

    lower: float
    upper: float
    requests: int


class Counts(Frozen):
    """Requests of one revision, as its users saw them. Monotonic; latency in seconds."""

    requests: int = Field(default=0, description="answered requests; one that was tried again counts once")
    errors: int = Field(default=0, description="of those: 5xx, broken off, or saved by a retry")
    unanswered: int = Field(default=0, description="requests besides, that whoever sent them gave up on")
    latency: tuple[Bucket, ...] = Field(default=(), description="by rising bounds; empty buckets left out")

    def quantile(self, share: float) -> float | None:
        """The latency that this share of the requests stays under, in seconds, interpolated within its bucket.

        None without any measurement.
        """
        wanted = share * sum(bucket.requests for bucket in self.latency)
        for bucket in self.latency:
            if wanted <= bucket.requests:
                return bucket.lower + (bucket.upper - bucket.lower) * wanted / bucket.requests
            wanted -= bucket.requests
        return self.latency[-1].upper if self.latency else None

    def slower(self, limit: float) -> int:
        """Requests that took longer than `limit` seconds, to the bucket: one that contains the limit is not slower."""
        return sum(bucket.requests for bucket in self.latency if bucket.lower >= limit)

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        buckets = {bucket.lower: bucket for bucket in self.latency}
        for bucket in other.latency:
            known = buckets.get(bucket.lower)
            buckets[bucket.lower] = bucket._replace(requests=bucket.requests + known.requests) if known else bucket
        return Counts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            unanswered=self.unanswered + other.unanswered,
            latency=tuple(buckets[lower] for lower in sorted(buckets)),
        )

    def since(self, earlier: Counts) -> Counts:
        """What was added. A counter that went backwards was reset and started from 0."""
        if self.requests < earlier.requests:
            return self
        before = {bucket.lower: bucket.requests for bucket in earlier.latency}
        added = (bucket._replace(requests=bucket.requests - before.get(bucket.lower, 0)) for bucket in self.latency)
        return Counts(
            requests=self.requests - earlier.requests,
            errors=max(0, self.errors - earlier.errors),
            unanswered=max(0, self.unanswered - earlier.unanswered),
            latency=tuple(bucket for bucket in added if bucket.requests > 0),
        )


class Sample(NamedTuple):
    """One series of a metric source, at one moment."""

    labels: dict[str, str]
    value: float


class Measurements(Frozen):
    """What was measured at one moment; two of them make a window."""

    at: datetime
    counts: dict[str, Counts]
    edge: Counts | None = Field(default=None, description="the same of the proxy: what users saw, after all retries")
    synthetic: dict[str, Counts] = Field(
        default_factory=dict, description="Headway's own probes: part of `counts`, as they were answered"
    )
    run: str | None = Field(default=None, description="another one each time the proxy's counters begin at 0 again")
    instances: tuple[Instance, ...] = Field(default=(), description="those of the revision that is watched")
    metrics: dict[str, float | str | None] = Field(
        default_factory=dict, description="answers of metric sources by name; None: no data, words: why there are none"
    )

    def since(self, earlier: Measurements, revision: Revision | str) -> Counts:
        """Requests of a revision between two readings."""
        return self.counts.get(str(revision), Counts()).since(earlier.counts.get(str(revision), Counts()))


# --- how it gets there -----------------------------------------------------------------------------------------


class Condition(Frozen):
    """An absolute guard-rail such as `success_rate >= 99` (percent) or `p99 <= 0.5` (seconds)."""

    metric: Literal["success_rate", "p50", "p99"]
    op: Literal[">=", "<="]
    limit: float

    def __str__(self) -> str:
        if self.metric == "success_rate":
            return f"success_rate {self.op} {self.limit:g} %"
        return f"{self.metric} {self.op} {self.limit * 1000:g} ms"


class Launch(Frozen):
    """Have at least `instances` instances of the revision running."""

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


class Order(Frozen):
    """What a person wants of a rollout while it runs.

    `skip` leaves out the step that is going on, `promote` every pause, gate and analysis from now on,
    `abort` goes back.
    """

    kind: Literal["promote", "skip", "abort"]
    by: str
    reason: str = ""
    position: int | None = Field(default=None, description="the step that was going on; a skip is for that one alone")

    def __str__(self) -> str:
        word = {"promote": "promoted", "skip": "skipped", "abort": "aborted"}[self.kind]
        return f"{word} by {self.by}" + (f": {self.reason}" if self.reason else "")


class Probe(Frozen):
    """One request and what it has to answer. Times in seconds."""

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
    """Ask the revision in the preview whether it does what it should."""

    kind: Literal["verify"] = "verify"
    revision: str
    probes: tuple[Probe, ...]

    def __str__(self) -> str:
        return f"verify {self.revision} through the preview: {len(self.probes)} probes"


class Synthetic(Frozen):
    """Requests that are sent, `rate` a second, while there is less real traffic than that."""

    requests: tuple[Probe, ...]
    rate: float


class MetricLimit(Frozen):
    """A limit on a metric source's answer; it is broken when it did not hold for `lasting` seconds."""

    name: str
    source: str = Field(description="the metric source block, as type/name")
    query: str
    op: Literal[">=", "<="]
    limit: float
    lasting: float

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.limit:g}"


class Comparison(Frozen):
    """How a revision is judged against the stable one under the same traffic. Shares, not percent."""

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

    @property
    def limits(self) -> tuple[Condition | MetricLimit | Comparison, ...]:
        """All that it is judged by; of nothing, no verdict is possible."""
        return (*self.conditions, *self.metrics, *([self.against] if self.against else []))

    def __str__(self) -> str:
        where = " in the preview" if self.preview else ""
        return f"analyze {self.revision}{where} for {self.window:g} s: {', '.join(map(str, self.limits))}"


class Rehearse(Frozen):
    """Switch to `low` and back to `back` while requests are counted: the way back, tried before it is needed."""

    kind: Literal["rehearse"] = "rehearse"
    low: Traffic
    back: Traffic
    within: float = Field(description="seconds that the way back may take")

    def __str__(self) -> str:
        return f"rehearse the way back to {self.back}, within {self.within:g} s"


class Promote(Frozen):
    """From here on the revision is the stable one; a failure before this rolls back."""

    kind: Literal["promote"] = "promote"
    revision: str

    def __str__(self) -> str:
        return f"promote {self.revision}"


class Drain(Frozen):
    """Let the revision's requests in flight finish, at most `deadline` seconds."""

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
    """What a rollout is going to do, step by step. Data: print it, store it, walk it."""

    strategy: str
    new: str = Field(description="revision id that is live afterwards")
    old: str | None = Field(description="revision id that was live before")
    steps: tuple[Step, ...]


class Verdict(StrEnum):
    """What an analysis found. Fail aborts; Inconclusive and Error ask a person; no data is never a pass."""

    PASS = "pass"  # noqa: S105 # a verdict
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
