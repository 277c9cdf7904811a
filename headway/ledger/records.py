"""Records that the ledger returns: frozen, typed, times in UTC."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from headway.config.app_policy import AppPolicy
from headway.domain.approvals import Decision
from headway.domain.base import Frozen
from headway.domain.events import MergeGroupEvent, PullRequestEvent, PushEvent
from headway.domain.plan import Plan
from headway.domain.source import CheckReport
from headway.system.processes import ProcessIdentity

__all__ = [
    "AppRecord",
    "ApprovalRecord",
    "DecisionRecord",
    "Delivery",
    "DeliveryRecord",
    "DeliveryState",
    "Heartbeat",
    "KnownCheck",
    "Lock",
    "LockRecord",
    "PolicyRecord",
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
APPROVAL = "approval"  # `asks` of a request to release a revision
FORK = "a fork"  # `asks` of a request to run a commit of a fork
ChangeState = Literal["waiting", "running", "done", "failed", "cancelled", "reverted"]
TITLE = 100  # characters
OPEN: tuple[ReleaseState, ...] = ("running", "waiting")


class ReleaseRecord(Frozen):
    """A release: one commit of an app, on its way through the environments."""

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
    def title(self) -> str:
        """Name and subject, such as `shop#5 Faster quotes`, in one line."""
        return textwrap.shorten(f"{self.name} {self.subject or ''}", TITLE, placeholder=" ...")

    @property
    def open(self) -> bool:
        return self.state in OPEN

    @property
    def summary(self) -> str:
        """Name, state and reason."""
        text = f"{self.name} {self.state.replace('_', ' ')}"
        return f"{text}: {self.reason}" if self.reason else text


class StageRecord(Frozen):
    """A stage of a release, such as a check, the build, or the rollout to an environment."""

    release_id: str
    position: int
    name: str
    state: StageState
    detail: str
    started_at: datetime
    finished_at: datetime | None

    @property
    def seconds(self) -> float:
        """Duration until its end, or until now."""
        return ((self.finished_at or datetime.now(UTC)) - self.started_at).total_seconds()


class RolloutRecord(Frozen):
    """A rollout or rollback of one environment."""

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
    url: str | None = Field(default=None, description="where the app answers since; None: not known")


class StepRecord(Frozen):
    """A step in the journal of a rollout."""

    rollout_id: str
    position: int
    title: str
    outcome: str | None
    detail: str
    started_at: datetime
    finished_at: datetime | None
    requests: int | None = Field(default=None, description="requests of users since the step before; None: not counted")
    failed: int | None = Field(default=None, description="of those, answered 5xx, interrupted, or without a response")
    worst: float | None = Field(default=None, description="the longest response time, in seconds")


class UserRequests(Frozen):
    """Requests of users while a release changed its environments."""

    requests: int
    failed: int
    worst: float | None = Field(description="the longest response time, in seconds")

    def __str__(self) -> str:
        worst = f", the longest took {1000 * self.worst:.0f} ms" if self.worst is not None else ""
        return f"{self.requests:,} requests of users meanwhile, {self.failed:,} failed{worst}"


class ApprovalRecord(Frozen):
    """A request for a person's decision on one revision in one environment, and the decision.

    `asks` is "approval", "freeze until TIME" (to release in spite of a freeze), or "a fork" (to run its commit at all).
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
    count: int = Field(default=1, description="how many different people have to approve")
    round: int = Field(default=0, description="number of the request, from 0; a void one is asked again")
    form: int = Field(default=0, description="number of its forms in the Prefect UI that were answered")
    form_after: int = Field(default=0, description="number of the last request to Prefect when this form was shown")

    @property
    def frozen(self) -> bool:
        return self.asks.startswith("freeze")


class DecisionRecord(Decision):
    """A decision on a request. A person has one for each request: the last one."""

    approval_id: str
    person: str = Field(description="the user, or the user who owns the token, in lower case")
    decided_at: datetime


class Lock(Frozen):
    """The right to change an environment. Every acquisition has a higher fencing token than the one before."""

    app: str
    environment: str
    holder: str
    token: int
    lease: float


class SchemaChange(Frozen):
    """A schema migration of an environment: expand before the rollout of its release, contract long after it."""

    id: str
    release_id: str
    app: str
    environment: str
    revision: str = Field(description="the revision that brought it, whose files are run")
    kind: Literal["expand", "contract"]
    state: ChangeState
    files: tuple[str, ...] = Field(description="its migration files, as far as they are known")
    detail: str
    output: str = Field(description="the end of what its commands printed")
    decided_at: datetime
    due_at: datetime | None = Field(description="when a contract runs; None: its release is not accepted yet")
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def begun(self) -> bool:
        """Whether it may have changed the database."""
        return self.state in ("running", "done", "failed")


class LockRecord(Frozen):
    """The holder of an environment's lock."""

    app: str
    environment: str
    holder: str
    revision: str
    token: int
    acquired_at: datetime
    expires_at: datetime
    expired: bool


class KnownCheck(Frozen):
    """The report of a check that passed with the same inputs in an earlier release."""

    release: str
    report: CheckReport


class Heartbeat(Frozen):
    """The process that executes a flow run, and how many seconds ago it said so."""

    process: ProcessIdentity
    age: float


class AppRecord(Frozen):
    """A registered app: its repository, and how its webhooks are verified."""

    name: str
    repo: str = Field(description="URL or path that is fetched, whatever URL a delivery contains")
    place: str = Field(description="host and path that all URLs of the repository share, such as github.com/acme/shop")
    host: str = Field(description="kind of git host: github, gitlab, gitea, bitbucket or generic")
    secret: str = Field(description="name of the secret that signs its deliveries")
    reports: str | None = Field(description="block of the git host that gets commit statuses, as type/name")
    branch: str | None = Field(
        default=None, description="branch that is released; None: headway.yaml of the default branch names it"
    )
    added_at: datetime
    added_by: str

    @property
    def path(self) -> str:
        """Path of the repository at its host, such as acme/shop."""
        return self.place.partition("/")[2]


class PolicyRecord(Frozen):
    """One version of the policy of an app."""

    app: str
    number: int
    policy: AppPolicy = Field(validation_alias="document")
    set_at: datetime
    set_by: str


class PreviewRecord(Frozen):
    """The preview environment of a pull request, an app of its own such as `shop-pr-42`."""

    app: str
    of: str = Field(description="the app that the pull request belongs to")
    number: int
    mark: str = Field(description="random marker by which Headway finds its comment on the pull request")
    head: str = Field(description="the newest commit that was requested")
    fork: bool = Field(description="whether that commit is from a fork")
    url: str | None = Field(description="None: nothing is deployed")
    opened_at: datetime
    updated_at: datetime = Field(description="when a deployment was last started or finished")
    expires_at: datetime | None = Field(description="when it is torn down; None: when the pull request is closed")
    closed_at: datetime | None = Field(description="when it was torn down; None: not yet")
    reason: str = Field(description="why it was torn down")
    reported: bool = Field(validation_alias="told", description="whether its last state was reported to the git host")
    given_up_at: datetime | None = Field(default=None, description="when its teardown last failed and needed a person")

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.of} pull request {self.number}"

    @property
    def active(self) -> bool:
        """Whether it is not torn down."""
        return self.closed_at is None


class Delivery(Frozen):
    """One verified event of a webhook delivery."""

    app: str
    delivery: str = Field(description="id that the host gave it")
    position: int = Field(default=0, description="of the event in the delivery")
    event: PushEvent | PullRequestEvent | MergeGroupEvent = Field(discriminator="kind")


class DeliveryRecord(Delivery):
    """One event, and how it was settled."""

    id: int
    ref: str = Field(description="the ref of a push, `#42` of a pull request, `merge group REF`")
    received_at: datetime
    state: DeliveryState
    detail: str
    tries: int
    due_at: datetime = Field(description="when it is processed; of one that started a run, when that was")
    sha: str | None = Field(description="the commit whose run it started")
    flow_run_id: str | None
    followed_by: int | None = Field(description="id of the delivery that started a newer commit of the same ref")
