"""Ports: what Headway needs of targets, registries, metric sources, git hosts, secret stores and runners.

Each port has a contract suite that every implementation passes: `headway.testing.contracts` has those that other
packages can run, tests/contracts/ the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from headway.domain.errors import TargetError
from headway.domain.git import CommitStatus, DeploymentStatus, PullRequest
from headway.domain.log_lines import LogLine
from headway.domain.measurements import Measurements
from headway.domain.plan import Plan, Probe
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import (
    AdoptableState,
    Capability,
    InstanceReadiness,
    ObjectDiff,
    Observation,
    Traffic,
)
from headway.domain.workload import Finished, Workload

if TYPE_CHECKING:
    import docker

__all__ = ["Command", "GitHost", "MetricSource", "Registry", "Runner", "SecretStore", "Suspendable", "Target"]


class Command(NamedTuple):
    """A shell command that runs once. `timeout` in seconds; `on_line` gets each line of its output, secrets masked."""

    text: str
    timeout: float
    stop: Event
    on_line: Callable[[str], None]


class Target(ABC):
    """Where revisions run.

    Methods are idempotent: calling one twice has the same result as calling it once, and an interrupted call is
    completed by the next one. They return in bounded time, and raise TargetError when the platform refuses or does not
    answer. Objects share no memory: each step of a release may run in another process.
    """

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this target can do. Strategies that need more are refused before a release starts."""

    def required(self) -> Literal["receipt"] | None:
        """Return what a launch needs here: `receipt`, a valid receipt of the release, also for a rollback."""
        return None

    @abstractmethod
    def claim(self, app: str, token: int) -> None:
        """Become the writer of this app with a fencing token: writers with a lower token get LockLost from now on.

        Raises LockLost when a higher token was claimed. An object that did not claim may write only while no token was
        claimed at all.
        """

    @abstractmethod
    def observe(self, app: str) -> Observation:
        """Return what runs now, read from the platform. An app that was never launched is empty, not an error."""

    @abstractmethod
    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        """Run at least `spec.instances` instances of the revision. Returns before they are ready.

        All values of `spec.env` are resolved: a SecretRef is refused with TargetError.
        """

    @abstractmethod
    def missing(self, spec: LaunchSpec) -> Refusal | None:
        """Return why the spec's artifact cannot be launched any more: it is gone, or not what was built.

        Called before a rollback depends on it. Targets that run the files of a bundle use
        headway.build.bundles.refusal, and refuse a launch for the same reasons.
        """

    @abstractmethod
    def ready(self, revision: Revision) -> InstanceReadiness:
        """Return how many instances answer their health path with 200 and the right version. Does not wait for them.

        `failed` is set when an instance will never be ready: its program cannot be started, or keeps dying.
        """

    @abstractmethod
    def route(self, app: str, traffic: Traffic) -> None:
        """Put this traffic in force, atomically. Returns when it is in force. Without weights, requests get 503.

        Raises TargetError when a revision with a positive weight has no ready instance, and for what the target does
        not declare in `capabilities`.
        """

    @abstractmethod
    def measure(self, app: str) -> Measurements:
        """Return the request counters of every revision; none without Capability.METRICS."""

    @property
    def counted_by(self) -> str:
        """What counts the requests of `measure`, in words for plans and verdicts. Only with Capability.METRICS."""
        return "the target"

    sends_requests: ClassVar[bool] = False
    """Whether `send` works. Without Capability.METRICS an analysis is then judged by the synthetic requests."""

    def send(self, app: str, revision: str, request: Probe) -> int:
        """Send a request to an instance of this revision, whatever the traffic is. Returns the status of the answer.

        503 when the instance does not answer. Raises TargetError when the request could not be sent.
        """
        raise TargetError(f"{app}: {request.path} cannot be sent to {revision}", "this target sends no requests")

    @abstractmethod
    def drain(self, revision: Revision, deadline: float) -> bool:
        """Wait until no request of the revision is in flight, at most `deadline` seconds. False if some are left."""

    @abstractmethod
    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        """Stop instances of the revision until `keep` are left. Each gets no new requests first, then finishes those in
        flight, for at most `drain` seconds (by default those of its spec).

        Raises TargetError when it would stop all instances of a revision with a positive weight.
        """

    @abstractmethod
    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        """Yield the last lines of each instance's log in order of time; with `follow`, then new ones as they come.

        `revision` limits them to its instances, `lines` is per instance.
        """

    @property
    def request_headers(self) -> Mapping[str, str]:
        """Headers that Headway adds to its own requests to a protected app. Their values are masked in all output."""
        return {}

    def check(self, app: str, plan: Plan) -> None:  # noqa: B027  # nothing to check by default
        """Check, before the first step, that every step of the plan is possible here. Changes nothing.

        For what depends on the platform's plan or settings. Raises UsageError, which names the choices, when a step is
        impossible; TargetError when the platform refuses access.
        """

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:  # noqa: ARG002  # by default
        """Run a shell command once, with the files, variables and limits of an instance but without PORT.

        Returns its exit code. One command at a time for each app. At its timeout, or when its `stop` is set, it and its
        children are ended. Raises TargetError then, and when it cannot be started.
        """
        raise TargetError(
            f"{spec.environment}: {spec.target} runs no commands: `{command.text}` cannot be run there",
            "let a check or the app itself do it, or choose another target",
        )

    def remarks(self, app: str, plan: Plan) -> tuple[str, ...]:  # noqa: ARG002  # by default
        """Return what differs from the plan when it runs here, a line each, such as weights that are rounded."""
        return ()

    def describe(self, app: str) -> tuple[str, ...]:
        """Describe what runs now, for people, a line each. With the platform's own objects and events if it has any."""
        return self.observe(app).lines

    def remembered(self, app: str) -> AdoptableState:  # noqa: ARG002  # by default
        """Return what the platform itself knows of the app, to rebuild a lost ledger. Empty by default."""
        return AdoptableState()

    def compare(self, revision: Revision, spec: LaunchSpec) -> tuple[ObjectDiff, ...] | None:  # noqa: ARG002  # by default
        """Return what a launch would change besides starting instances, according to the platform. Changes nothing.

        `spec` may have secrets without a value. None when the target cannot compare. Raises TargetError with everything
        that the platform would refuse.
        """
        return None

    def stop_idle(self, app: str) -> None:  # noqa: B027  # by default
        """Stop what serves an app of which nothing runs, such as its proxy. By default nothing does. Repeatable.

        Ports, objects and logs stay. The next launch starts it again.
        """

    def forget(self, app: str) -> None:
        """Remove everything that is kept for an app of which nothing runs: ports, proxy, objects, logs. Repeatable.

        Only its fencing token stays. Raises TargetError while something of the app runs, and on targets of a single
        app.
        """
        raise TargetError(f"{app}: this target is one app's: it cannot be forgotten", "remove it on the platform")

    def unreachable(self, app: str) -> Refusal | None:  # noqa: ARG002  # by default
        """Return why a live app does not answer at its public address, if the target can tell. Nothing by default."""
        return None

    def revive(self, app: str) -> bool:  # noqa: ARG002  # by default
        """Start again what should run and nothing else restarts, after a reboot. True if there was any."""
        return False


class Suspendable(ABC):
    """A target of this machine, whose apps can be stopped and started again as a whole."""

    @abstractmethod
    def suspend(self) -> None:
        """Stop the instances and proxies of every app; `Target.revive` starts them again. Raises TargetError."""


class Registry(ABC):
    """An image registry. Images are identified by the digest that the registry itself reports."""

    @abstractmethod
    def push(
        self,
        engine: docker.DockerClient,
        image: str,
        repository: str,
        tags: Sequence[str],
        on_line: Callable[[str], None],
    ) -> str:
        """Push an image of this engine under these tags. Returns its digest. Layers that exist are not sent again.

        Raises RegistryError when the registry refuses it, or fails several times.
        """

    @abstractmethod
    def exists(self, repository: str, digest: str) -> bool:
        """Whether the complete image is still there. Raises RegistryError when the registry does not answer."""

    @abstractmethod
    def attach(self, repository: str, subject_digest: str, artifact_type: str, content: bytes, media_type: str) -> str:
        """Store a statement about an image beside it, such as an SBOM. Returns its digest. Repeatable.

        Raises RegistryError.
        """


class MetricSource(ABC):
    """A source of business metrics, such as orders per minute or failed payments."""

    @abstractmethod
    def query(self, expression: str) -> float | None:
        """Return the current value of an expression; None when there is no data. NaN is no data.

        Raises MetricsUnavailable when the source does not answer, refuses the expression, or answers with more than
        one value.
        """


class GitHost(ABC):
    """A git host: takes the statuses of commits, and answers questions about pull requests.

    `repo` is the repository's path there, such as `acme/shop`. Methods are idempotent, return in bounded time, and
    raise GitHostError, which has the time to retry after when the host sent one.
    """

    @abstractmethod
    def set_status(self, repo: str, status: CommitStatus) -> None:
        """Set the status of a commit. Replaces the one that it has in this context."""

    def set_deployment(self, repo: str, deployment: DeploymentStatus) -> None:  # noqa: B027  # by default
        """Set the deployment status of a commit in an environment. Does nothing on hosts without such statuses.

        An environment that was torn down is removed at the host.
        """

    @abstractmethod
    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        """Create or update the one comment with this marker on a pull request."""

    @abstractmethod
    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        """Return the current state of the pull request; None if it does not exist."""

    @abstractmethod
    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        """Return all open pull requests, by number."""


class SecretStore(ABC):
    """A place where secrets are kept, by names such as `shop-production/database-url`."""

    order: ClassVar[int] = 100
    """Stores are asked in ascending order, and the first value is used. Headway's own have 10, 20 and 30."""

    @abstractmethod
    async def get(self, name: str) -> str | None:
        """Return the value; None when this store does not have it. Raises HeadwayError if the store cannot be read."""

    @abstractmethod
    def location(self, name: str) -> str:
        """Return where this store looks for the secret, for the error that it was not found. Without its value."""


class Runner(ABC):
    """Runs an app's commands on the worker: checks, build commands, scanners. They are not trusted."""

    name: ClassVar[str]
    """Name of its entry point, which HEADWAY_RUNNER names."""
    isolated: ClassVar[bool]
    """Whether a workload is kept from the files, processes and loopback addresses of this machine."""

    @abstractmethod
    def missing(self) -> Refusal | None:
        """Return why this runner cannot be used on this machine; None when it can."""

    @abstractmethod
    async def run(self, workload: Workload) -> Finished:
        """Run the workload to its end, then end whatever it has left running.

        An exit code other than 0 is returned, not raised. Raises CommandFailed when it cannot be started or times out.
        """
