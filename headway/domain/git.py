"""Commit statuses, deployment statuses and pull requests of git hosts."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AliasChoices, Field

from headway.domain.base import Frozen

__all__ = ["OBJECT_ID", "CommitStatus", "DeploymentStatus", "PullRequest", "StatusState"]

OBJECT_ID = "^[0-9a-f]{40}([0-9a-f]{24})?$"
"""Pattern of the id of a commit or tree: SHA-1, or SHA-256 in a repository of that format."""


class StatusState(StrEnum):
    """State of a status; each host has its own names for them."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ENDED = "ended"  # by a person or a newer commit, not because of what was found


class CommitStatus(Frozen):
    """Status of a commit. A later one with the same context replaces it."""

    sha: str
    context: str
    state: StatusState
    description: str
    url: str


class DeploymentStatus(Frozen):
    """Deployment status of a commit in an environment."""

    sha: str
    environment: str
    state: StatusState = Field(validation_alias=AliasChoices("state", "standing"))  # "standing": ledgers of 0.1.0
    description: str
    log_url: str
    url: str | None
    transient: bool = Field(default=False, description="the environment is that of a pull request")
    removed: bool = Field(default=False, description="the environment was torn down, and is to be removed at the host")


class PullRequest(Frozen):
    """A pull request, as its host reports it now."""

    number: int
    open: bool
    head: str
    fork: bool
    base: str
    """The base branch."""
    branch: str
    """The head branch, in its own repository."""
