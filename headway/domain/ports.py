"""The outside world as Headway sees it.

Each port has one contract suite in tests/contracts/ that every adapter passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from headway.domain.errors import TargetError
from headway.domain.git import CommitStatus, DeploymentStatus, PullRequest
from headway.domain.measurements import Measurements
from headway.domain.plan import Plan
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import (
    AdoptableState,
    Capability,
    InstanceReadiness,
    ObjectDiff,
    Observation,
    Traffic,
)

if TYPE_CHECKING:
    import docker

__all__ = ["Command", "GitHost", "MetricSource", "Registry", "Target"]


class Command(NamedTuple):
    """A shell command that is run once, and how: `timeout` in seconds, `on_line` gets what it says, secrets masked."""

    text: str
    timeout: float
    stop: Event
    on_line: Callable[[str], None]


class Target(ABC):
    """Where revisions run.

    Verbs are idempotent: doing one twice is doing it once, and one that died half-way is mended by doing it again. They
    block for a bounded time and raise `TargetError` when the platform refuses or does not answer within it.
    """

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What it can do: of every target of its kind, or as it is set."""

    @abstractmethod
    def claim(self, app: str, token: int) -> None:
        """Become the writer of this app with a fencing token; from now on writers with a lower token are refused.

        Raises LockLost when a higher token has been seen. A target object that never claimed may write only while
        nobody has.
        """

    @abstractmethod
    def observe(self, app: str) -> Observation:
        """What is live now, read from the platform. An app never launched here is empty, not an error."""

    @abstractmethod
    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        """Have at least `spec.instances` instances of the revision running; returns before they are ready.

        Every value of `spec.env` is resolved by now: a `SecretRef` here is a `TargetError`.
        """

    @abstractmethod
    def missing(self, spec: LaunchSpec) -> str:
        """Why the spec's artifact cannot be launched, in words; empty when it can. Asked before a way back needs it."""

    @abstractmethod
    def ready(self, revision: Revision) -> InstanceReadiness:
        """How many instances answer their health path with 200 and the right version. Quick: the caller does the
        waiting.

        `failed` is set when an instance will not get there by itself: its program cannot be started or keeps dying.
        """

    @abstractmethod
    def route(self, app: str, traffic: Traffic) -> None:
        """Put this traffic in force, atomically; returns when it is. Empty traffic answers 503.

        Raises TargetError when a revision with a positive weight has no ready instance.
        """

    @abstractmethod
    def measure(self, app: str) -> Measurements:
        """Counters of every revision the proxy knows, now."""

    @abstractmethod
    def drain(self, revision: Revision, deadline: float) -> bool:
        """Wait until the revision has no request in flight, at most `deadline` seconds; False when it still had
        some.
        """

    @abstractmethod
    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        """Stop instances of the revision until `keep` are left; each takes no new request first and finishes those it
        has, within `drain` seconds, or those of its spec.

        Raises TargetError when it would stop all instances of a revision that has a positive weight.
        """

    @abstractmethod
    def logs(self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        """The last log lines of the app's instances, each prefixed with its instance; with `follow`, then new ones
        as they come.
        """

    @property
    def request_headers(self) -> Mapping[str, str]:
        """What lets Headway's own requests in where strangers are kept out. Secret: masked wherever it is said."""
        return {}

    def check(self, app: str, plan: Plan) -> None:  # noqa: B027  # for targets that can always do what they declare
        """Before the first step: whether every step can be taken here, where that depends on what is paid for or set.

        Nothing is changed. Raises UsageError, with the choices, when one cannot; TargetError when this is not the
        right place, or the platform refuses us.
        """

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:  # noqa: ARG002  # by default
        """Run a shell command once, as an instance of the revision would run: same files, variables and limits, without
        PORT. Its exit code, when it has ended by itself.

        One at a time for each app. When its time is over, or its `stop` is set, it is ended, with all that it started.
        Raises TargetError then, and when it cannot be started.
        """
        raise TargetError(
            f"{spec.environment}: {spec.target} runs no commands: `{command.text}` cannot be run there",
            "let a check or the app itself do it, or choose another target",
        )

    def remarks(self, app: str, plan: Plan) -> tuple[str, ...]:  # noqa: ARG002  # for targets that do exactly as they are told
        """What a person should know of a plan before it is walked, a line each: weights that can only be had nearly."""
        return ()

    def describe(self, app: str) -> tuple[str, ...]:
        """What runs now, in words for people, a line each; the platform's own objects and events where it has some."""
        return self.observe(app).lines

    def remembered(self, app: str) -> AdoptableState:  # noqa: ARG002  # for targets whose revisions only the ledger knows
        """What the platform knows by itself, for a ledger that is lost; nothing where it knows nothing."""
        return AdoptableState()

    def compare(self, revision: Revision, spec: LaunchSpec) -> tuple[ObjectDiff, ...] | None:  # noqa: ARG002  # by default
        """What a launch would change besides starting instances, as the platform itself says; nothing is changed.

        `spec` may have secrets without a value. None for targets that have nothing to compare. Raises TargetError with
        everything that the platform would refuse.
        """
        return None

    def forget(self, app: str) -> None:
        """Free all that is kept for an app of which nothing runs: ports, a proxy, objects, logs. Repeatable.

        Afterwards it is as if it had never been launched here, but that an older writer is refused still. Raises
        TargetError when something of it runs, and where there is one app a target.
        """
        raise TargetError(f"{app}: this target is one app's: it cannot be forgotten", "take it away on the platform")

    def revive(self, app: str) -> bool:  # noqa: ARG002  # for targets that have nothing to revive
        """Start again what should be running and nobody else starts; whether there was anything. Repeatable."""
        return False


class Registry(ABC):
    """Where images are, known by the digest that the registry itself says."""

    @abstractmethod
    def push(
        self,
        engine: docker.DockerClient,
        image: str,
        repository: str,
        tags: Sequence[str],
        on_line: Callable[[str], None],
    ) -> str:
        """Push an image of this engine under these tags; its digest. Repeatable: what is there is not sent again.

        Raises RegistryError when the registry refuses, or does not take it in several tries.
        """

    @abstractmethod
    def exists(self, repository: str, digest: str) -> bool:
        """Whether all of the image is still there. Raises RegistryError when the registry does not say."""

    @abstractmethod
    def attach(self, repository: str, subject_digest: str, artifact_type: str, content: bytes, media_type: str) -> str:
        """Keep a statement about an image, such as what it is made of, beside it; its digest. Repeatable.

        Raises RegistryError.
        """


class MetricSource(ABC):
    """Where business metrics are asked for: orders per minute, payments that failed."""

    @abstractmethod
    def query(self, expression: str) -> float | None:
        """The value of an expression now; None when there is no data. NaN is no data.

        Raises MetricsUnavailable when the source does not answer, refuses the expression, or answers with more than
        one value.
        """


class GitHost(ABC):
    """Where a repository is at home: it is told how its commits do, and asked about pull requests.

    `repo` is the repository's path there, such as `acme/shop`. Verbs are idempotent, block for a bounded time, and
    raise GitHostError, which says when to ask again where the host does.
    """

    @abstractmethod
    def set_status(self, repo: str, status: CommitStatus) -> None:
        """Mark a commit. The mark that it had in this context is replaced."""

    def set_deployment(self, repo: str, deployment: DeploymentStatus) -> None:  # noqa: B027  # for hosts that know of none
        """Say how a commit's way into an environment stands, where the host has a place for it."""

    @abstractmethod
    def set_comment(self, repo: str, number: int, marker: str, text: str) -> None:
        """Have one comment with this marker under a pull request, and this text in it."""

    @abstractmethod
    def pull_request(self, repo: str, number: int) -> PullRequest | None:
        """As it is now; None when there is none."""

    @abstractmethod
    def open_pull_requests(self, repo: str) -> dict[int, PullRequest]:
        """All that are open now, by number."""
