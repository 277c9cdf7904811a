"""What happened in a repository, in the same terms for every git host."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints

from headway.domain.base import Frozen
from headway.domain.git import OBJECT_ID

__all__ = [
    "NOTHING",
    "Action",
    "Event",
    "GitRef",
    "Ignored",
    "Line",
    "MergeGroupEvent",
    "PullRequestEvent",
    "PushEvent",
    "Sha",
    "TriggerEvent",
    "deleted",
    "pushed",
]

NOTHING = "0" * 40  # git's notation for no commit; hosts send 64 zeros for a repository with SHA-256
Sha = Annotated[str, StringConstraints(pattern=OBJECT_ID)]
_NAME = r"[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*"
GitRef = Annotated[str, StringConstraints(pattern=f"^refs/(heads|tags)/{_NAME}$", max_length=255)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=255)]
Action: TypeAlias = Literal["release", "preview", "teardown", "checks"]


class TriggerEvent(Frozen):
    """An event that may start a flow run. It is a hint: the dispatcher reads the current state from the repository."""

    starts: ClassVar[Action]
    """What a new commit starts."""

    places: tuple[str, ...] = Field(description="normalized addresses of the repository, see `place`")
    ref: str = Field(description="full ref of the commits in the repository, such as refs/heads/main")
    by: str = Field(description="user name at the host")

    @property
    @abstractmethod
    def subject(self) -> str:
        """The ref or pull request. A later event of the same subject supersedes this one."""

    @property
    @abstractmethod
    def commit(self) -> str | None:
        """The newest commit, if the host has sent it."""

    def action(self, sha: str) -> Action:
        """What to do for this commit of the subject; `NOTHING`: the pull request is closed."""
        return "teardown" if sha == NOTHING else self.starts


class PushEvent(TriggerEvent):
    """A branch or tag was created or moved."""

    starts = "release"
    kind: Literal["push"] = "push"
    before: str | None = Field(description="commit of the ref before the push; None for a new ref")
    after: str = Field(description="commit of the ref after the push")

    @property
    def subject(self) -> str:
        return self.ref

    @property
    def commit(self) -> str:
        return self.after


class PullRequestEvent(TriggerEvent):
    """A pull request (GitLab: merge request) was opened, closed, or got new commits."""

    starts = "preview"
    kind: Literal["pull_request"] = "pull_request"
    number: int
    open: bool
    head: str | None = Field(description="its newest commit")
    base: str = Field(description="branch to merge into")
    fork: bool = Field(description="the commits are from another, untrusted repository")
    again: bool = Field(default=False, description="requested by a user: start a commit again that was started before")

    @property
    def subject(self) -> str:
        return f"#{self.number}"

    @property
    def commit(self) -> str | None:
        return self.head


class MergeGroupEvent(TriggerEvent):
    """A merge queue (GitLab: merge train) wants to know whether a group of pull requests passes the checks together."""

    starts = "checks"
    kind: Literal["merge_group"] = "merge_group"
    head: str = Field(description="the commit that would be merged")
    base: str = Field(description="branch to merge into")

    @property
    def subject(self) -> str:
        """Not the ref alone: hosts send the push of that, too."""
        return f"merge group {self.ref}"

    @property
    def commit(self) -> str:
        return self.head


class Ignored(Frozen):
    """An event that starts nothing, and why."""

    kind: Literal["ignored"] = "ignored"
    reason: str


Event: TypeAlias = PushEvent | PullRequestEvent | MergeGroupEvent | Ignored


def pushed(places: tuple[str, ...], ref: str, before: str, after: str, by: str) -> PushEvent | Ignored:
    """The event of a push with zeros for no commit, as hosts send it."""
    if not after.strip("0"):
        return deleted(ref)
    return PushEvent(places=places, ref=ref, before=before if before.strip("0") else None, after=after, by=by)


def deleted(ref: str) -> Ignored:
    """The event of a deleted branch or tag. What was released of it stays released."""
    return Ignored(reason=f"{ref} was deleted")
