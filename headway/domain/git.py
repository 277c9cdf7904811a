"""What git hosts know of a commit: statuses, deployments, pull requests."""

from __future__ import annotations

from enum import StrEnum

from headway.domain.base import Frozen

__all__ = ["CommitStatus", "DeploymentStatus", "PullRequest", "StatusState"]


class StatusState(StrEnum):
    """How something stands; hosts have words of their own for it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ENDED = "ended"  # by a person or a newer commit, not because of what was found


class CommitStatus(Frozen):
    """One mark on a commit; a later one of the same context takes its place."""

    sha: str
    context: str
    state: StatusState
    description: str
    url: str


class DeploymentStatus(Frozen):
    """How a commit's way into one environment stands."""

    sha: str
    environment: str
    state: StatusState
    description: str
    log_url: str
    url: str | None


class PullRequest(Frozen):
    """A pull request as its host knows it now."""

    number: int
    open: bool
    head: str
    fork: bool
    base: str
    """The branch that it is for."""
    branch: str
    """The branch that it is from, in its own repository."""
