"""What the ledger gives back: frozen, typed, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.events import PullRequestEvent, PushEvent
from headway.domain.plan import Plan
from headway.domain.source import CheckReport

__all__ = [
    "AppRecord",
    "ApprovalRecord",
    "Delivery",
    "DeliveryRecord",
    "DeliveryState",
    "KnownCheck",
    "Lock",
    "LockRecord",
    "PreviewRecord",
    "ReleaseRecord",
    "ReleaseState",
    "RolloutKind",
    "RolloutRecord",
    "RolloutState",
    "SchemaChange",
    "StageRecord",
    "StageState",
    "StepRecord",
    "UserRequests",
]

ReleaseState = Literal[
    "running", "waiting", "succeeded", "failed", "rolled_back", "rejected", "expired", "superseded", "cancelled"
]
StageState = Literal["running", "waiting", "passed", "cached", "failed", "skipped", "cancelled"]
RolloutKind = Literal["release", "rollback"]
RolloutState = Literal["running", "done", "rolled_back", "halted"]
DeliveryState = Literal["waiting", "starting", "started", "superseded", "duplicate", "ignored", "failed"]
ApprovalState = Literal["waiting", "approved", "rejected", "expired", "void"]
APPROVAL = "approval"  # what is asked for
FORK = "a fork"  # likewise: whether commits of strangers may run here
ChangeState = Literal["waiting", "running", "done", "failed", "cancelled", "reverted"]
OPEN: tuple[ReleaseState, ...] = ("running", "waiting")


class ReleaseRecord(Frozen):
    """One way of a commit towards production."""

    id: str
    app: str
    number: int
    repo: str
    ref: str
    flow_run_id: str | None
    requested_by: str
    state: ReleaseState
    reason: str = ""
    started_at: datetime
    finished_at: datetime | None = None
    sha: str | None = None
    tree: str | None = None
    author: str | None = None
    subject: str | None = None
    committed_at: datetime | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.app}#{self.number}"

    @property
    def open(self) -> bool:
        return self.state in OPEN

    @property
    def summary(self) -> str:
        """How it stands or ended, and why."""
        words = f"{self.name} {self.state.replace('_', ' ')}"
        return f"{words}: {self.reason}" if self.reason else words


class StageRecord(Frozen):
    """One stage of a release, as `headway release` shows it."""

    release_id: str
    position: int
    name: str
    state: StageState
    detail: str
    started_at: datetime
    finished_at: datetime | None

    @property
    def seconds(self) -> float:
        """How long it took, or has been going on."""
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


class RolloutRecord(Frozen):
    """One change of one environment, forwards or back."""

    id: str
    release_id: str | None
    app: str
    environment: str
    sequence: int
    kind: RolloutKind
    state: RolloutState
    reason: str
    token: int
    plan: Plan
    started_at: datetime
    finished_at: datetime | None


class StepRecord(Frozen):
    """One line of a rollout's journal."""

    rollout_id: str
    position: int
    title: str
    outcome: str | None
    detail: str
    started_at: datetime
    finished_at: datetime | None
    requests: int | None = Field(default=None, description="answered to users since the step before; None: not counted")
    failed: int | None = Field(default=None, description="of those, 5xx, broken off, or given up on")
    worst: float | None = Field(default=None, description="the longest of those, in seconds")


class UserRequests(Frozen):
    """Requests of users while a release changed its environments."""

    requests: int
    failed: int
    worst: float | None = Field(description="the longest, in seconds")

    def __str__(self) -> str:
        worst = f", the longest took {1000 * self.worst:.0f} ms" if self.worst is not None else ""
        return f"{self.requests:,} requests of users meanwhile, {self.failed:,} failed{worst}"


class ApprovalRecord(Frozen):
    """A person's word on one revision for one environment, or the wait for it.

    It `asks` for an approval or, as `freeze until TIME`, whether the revision may go there in spite of a freeze; of `a
    fork`, whether its commit may run here at all.
    """

    id: str
    release_id: str
    environment: str
    revision: str
    state: ApprovalState
    evidence: dict[str, Any]
    by: list[str]
    not_author: bool
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    reason: str | None
    via: str | None
    asks: str = APPROVAL

    @property
    def frozen(self) -> bool:
        return self.asks.startswith("freeze")


class Lock(Frozen):
    """The right to change an environment. `token` rises with every acquisition and is never given twice."""

    app: str
    environment: str
    holder: str
    token: int
    lease: float


class SchemaChange(Frozen):
    """What a release does to the database of an environment, before its rollout or after."""

    id: str
    release_id: str
    app: str
    environment: str
    revision: str = Field(description="the version that brought it, and whose files are run")
    kind: Literal["expand", "contract"]
    state: ChangeState
    files: tuple[str, ...] = Field(description="the migrations it is about, as far as that is known")
    detail: str
    output: str = Field(description="what the commands said, the end of it")
    decided_at: datetime
    due_at: datetime | None = Field(description="a contract is done then; None: its rollout has not arrived yet")
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def begun(self) -> bool:
        """Whether the database may have changed by it."""
        return self.state in ("running", "done", "failed")


class LockRecord(Frozen):
    """Who holds an environment, for messages."""

    app: str
    environment: str
    holder: str
    revision: str
    token: int
    acquired_at: datetime
    expires_at: datetime
    expired: bool


class KnownCheck(Frozen):
    """A check that passed with the same inputs before."""

    release: str
    report: CheckReport


class AppRecord(Frozen):
    """An app whose git host may tell Headway what happened in its repository."""

    name: str
    repo: str = Field(description="URL or path it is fetched from; what a delivery says of that does not count")
    place: str = Field(description="what all its addresses have in common, see `headway.scm.webhooks.place`")
    host: str = Field(description="kind of git host: github, gitlab, gitea, bitbucket or generic")
    secret: str = Field(description="name of the secret that its deliveries are signed with")
    reports: str | None = Field(description="block of the host that is told how its commits do, as type/name")
    added_at: datetime
    added_by: str

    @property
    def path(self) -> str:
        """What its host calls the repository, such as acme/shop."""
        return self.place.partition("/")[2]


class PreviewRecord(Frozen):
    """What stands for a pull request: an app of its own, `shop-pr-42`, in one environment."""

    app: str
    of: str = Field(description="the app whose pull request it is")
    number: int
    mark: str = Field(description="what nobody else knows beforehand: by it the comment on the pull request is found")
    head: str = Field(description="the commit that was asked for last")
    fork: bool = Field(description="that commit is from somebody else's repository")
    url: str | None = Field(description="where it answers; None: nothing is deployed")
    opened_at: datetime
    updated_at: datetime = Field(description="when something was last begun or deployed")
    expires_at: datetime | None = Field(description="it is torn down then; None: not before the pull request is closed")
    closed_at: datetime | None = Field(description="when it was torn down; None: it stands, or is being made")
    reason: str = Field(description="why it was torn down")
    told: bool = Field(description="the host has the last word on it")
    given_up_at: datetime | None = Field(
        default=None, description="when it was last tried in vain to tear it down: it needs a person"
    )

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.of} pull request {self.number}"

    @property
    def stands(self) -> bool:
        return self.closed_at is None


class Delivery(Frozen):
    """One event as it came in, verified."""

    app: str
    delivery: str = Field(description="what the host calls it")
    position: int = Field(default=0, description="of the event, in a delivery of several")
    event: PushEvent | PullRequestEvent = Field(discriminator="kind")


class DeliveryRecord(Delivery):
    """One event, and what has become of it."""

    id: int
    ref: str = Field(description="the ref of a push, or `#42` of a pull request")
    received_at: datetime
    state: DeliveryState
    detail: str
    tries: int
    due_at: datetime = Field(description="when it may be looked at; once it has started something, when that was")
    sha: str | None = Field(description="the commit that it started")
    flow_run_id: str | None
    followed_by: int | None = Field(description="the delivery that started a newer commit of the same ref")
