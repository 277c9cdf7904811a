"""Fakes of the ports, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import ClassVar

from headway.domain.errors import TargetError
from headway.domain.fencing import FencingTokens
from headway.domain.git import CommitStatus, DeploymentStatus, PullRequest
from headway.domain.log_lines import LogLine
from headway.domain.measurements import Bucket, Measurements, RequestCounts
from headway.domain.ports import Command, GitHost, SecretStore, Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic

__all__ = ["FakeGitHost", "FakeSecretStore", "FakeTarget"]


class FakeTarget(Target):
    """A target in memory.

    Instances are ready at once, unless their revision is in `broken`. Artifacts exist, unless their digest is in
    `lost`. `faults["route"] = [TargetError("..."), None]` makes the next call of `route` fail and the one after it
    succeed. Each call of `measure` counts `requests` more, of which the share `error_rate[revision]` fails; they take
    10 to 50 ms, times `slowness[revision]`. Commands are only recorded, in `executed`, and end with 0 or as
    `exit_codes` says.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    def __init__(self) -> None:
        self.faults: dict[str, list[Exception | None]] = {}
        self.broken: set[str] = set()
        self.lost: set[str] = set()
        self.exit_codes: dict[str, int] = {}
        self.executed: list[tuple[str, str]] = []
        self.error_rate: dict[str, float] = {}
        self.slowness: dict[str, float] = {}
        self.requests = 100
        self.history: list[Traffic] = []
        self._instances: dict[str, dict[str, int]] = {}
        self._traffic: dict[str, Traffic] = {}
        self._tokens = FencingTokens()
        self._newest: dict[str, int] = {}
        self._counts: dict[str, RequestCounts] = {}

    def claim(self, app: str, token: int) -> None:
        self._newest[app] = self._tokens.claim(app, token, self._newest.get(app, 0))

    def observe(self, app: str) -> Observation:
        self._maybe_fail("observe")
        running = self._instances.get(app, {})
        instances = {
            revision: tuple(
                Instance(name=f"{revision}-{n}", address=f"fake:{n}", ready=revision not in self.broken)
                for n in range(number)
            )
            for revision, number in running.items()
            if number
        }
        url = "http://fake" if app in self._instances else None
        traffic = self._traffic.get(app, Traffic())
        preview_url = "http://fake-preview" if traffic.preview else None
        return Observation(app=app, url=url, preview_url=preview_url, traffic=traffic, instances=instances)

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        self._writes(revision.app, "launch")
        if any(isinstance(value, SecretRef) for value in spec.env.values()):
            raise TargetError(f"{spec.environment}: secrets without a value")
        running = self._instances.setdefault(revision.app, {})
        running[revision.id] = max(running.get(revision.id, 0), spec.instances)

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        return Refusal("it is lost") if spec.artifact.digest in self.lost else None

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        self._maybe_fail("execute")
        self.executed.append((revision.id, command.text))
        command.on_line(f"did {command.text}")
        return self.exit_codes.get(command.text, 0)

    def ready(self, revision: Revision) -> InstanceReadiness:
        self._maybe_fail("ready")
        wanted = self._instances.get(revision.app, {}).get(revision.id, 0)
        if revision.id in self.broken:
            return InstanceReadiness(wanted=wanted, ready=0, failed=True, detail="it is broken")
        return InstanceReadiness(wanted=wanted, ready=wanted)

    def route(self, app: str, traffic: Traffic) -> None:
        self._writes(app, "route")
        for revision, weight in traffic.weights.items():
            if weight and (revision in self.broken or not self._instances.get(app, {}).get(revision)):
                raise TargetError(f"{app}: {revision} has no ready instance to route to")
        self._traffic[app] = traffic
        self.history.append(traffic)

    def measure(self, app: str) -> Measurements:
        self._maybe_fail("measure")
        for revision, weight in self._traffic.get(app, Traffic()).weights.items():
            before = self._counts.get(revision, RequestCounts())
            new = self.requests * weight // 100
            failed = round(new * self.error_rate.get(revision, 0.0))
            self._counts[revision] = RequestCounts(
                requests=before.requests + new,
                errors=before.errors + failed,
                latency=_spread(before.requests + new, self.slowness.get(revision, 1.0)),
            )
        known = self._instances.get(app, {})
        counts = {revision: self._counts.get(revision, RequestCounts()) for revision in known}
        # The proxy still counts the requests of retired revisions.
        edge = RequestCounts(
            requests=sum(each.requests for each in self._counts.values()),
            errors=sum(each.errors for each in self._counts.values()),
        )
        return Measurements(at=datetime.now(UTC), counts=counts, edge=edge)

    def drain(self, revision: Revision, deadline: float) -> bool:
        self._maybe_fail("drain")
        return True

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        self._writes(revision.app, "retire")
        running = self._instances.get(revision.app, {})
        if not keep and self._traffic.get(revision.app, Traffic()).weights.get(revision.id):
            raise TargetError(f"{revision.app}: {revision} gets traffic and cannot be retired")
        if revision.id in running:
            running[revision.id] = min(running[revision.id], keep)
            if not running[revision.id]:
                del running[revision.id]
                self._traffic[revision.app] = self._traffic.get(revision.app, Traffic()).without(revision)

    def forget(self, app: str) -> None:
        self._writes(app, "forget")
        if self._instances.get(app):
            raise TargetError(f"{app}: {', '.join(self._instances[app])} runs", "retire it first")
        self._instances.pop(app, None)
        self._traffic.pop(app, None)

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        for one in self._instances.get(app, {}):
            if revision is None or revision in one:
                yield LogLine(one, "started", datetime.now(UTC))

    def _writes(self, app: str, verb: str) -> None:
        self._maybe_fail(verb)
        self._tokens.check(app, self._newest.get(app, 0))

    def _maybe_fail(self, verb: str) -> None:
        coming = self.faults.get(verb)
        fault = coming.pop(0) if coming else None
        if fault is not None:
            raise fault


class FakeGitHost(GitHost):
    """A git host in memory. Each call raises the next of `faults`, if any; None lets it succeed."""

    def __init__(self) -> None:
        self.faults: list[Exception | None] = []
        self.told: list[CommitStatus | DeploymentStatus] = []
        self.pulls: dict[int, PullRequest] = {}
        self._comments: dict[int, dict[str, str]] = {}

    def has_pull(self, number: int, sha: str, *, open: bool = True, fork: bool = False) -> None:  # noqa: A002
        self.pulls[number] = PullRequest(number=number, open=open, head=sha, fork=fork, base="main", branch="feature")

    def mark(self, sha: str, context: str) -> tuple[str, str, str]:
        """Status of a commit: state, description, link."""
        marks = {
            (one.sha, one.context): (one.state, one.description, one.url)
            for one in self.told
            if isinstance(one, CommitStatus)
        }
        return marks[sha, context]

    def texts(self, number: int) -> list[str]:
        return [f"{marker}\n{text}" for marker, text in self._comments.get(number, {}).items()]

    def set_status(self, repo: str, status: CommitStatus) -> None:
        self._maybe_fail()
        self.told.append(status)

    def set_deployment(self, repo: str, deployment: DeploymentStatus) -> None:
        self._maybe_fail()
        self.told.append(deployment)

    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        self._maybe_fail()
        self._comments.setdefault(number, {})[marker] = text

    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        self._maybe_fail()
        return self.pulls.get(number)

    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        self._maybe_fail()
        return {number: pull for number, pull in self.pulls.items() if pull.open}

    def _maybe_fail(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault


class FakeSecretStore(SecretStore):
    """A secret store in memory."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.secrets = dict(secrets)

    async def get(self, name: str) -> str | None:
        return self.secrets.get(name)

    def location(self, name: str) -> str:
        return f"the key {name} of the fake store"


def _spread(requests: int, slowness: float) -> tuple[Bucket, ...]:
    """Most requests take 10 ms, one in a hundred 50."""
    slow = requests // 100
    fast = Bucket(0.010 * slowness, 0.011 * slowness, requests - slow)
    buckets = (fast, Bucket(0.050 * slowness, 0.051 * slowness, slow))
    return tuple(bucket for bucket in buckets if bucket.requests)
