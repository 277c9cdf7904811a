"""Events of a repository, the same for every git host."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from headway.domain.base import Frozen

__all__ = ["Event", "GitRef", "Ignored", "Line", "PullRequestEvent", "PushEvent", "Sha", "deleted", "pushed"]

NOTHING = "0" * 40  # what git calls a commit that is not there
Sha = Annotated[str, StringConstraints(pattern="^[0-9a-f]{40}$")]
_NAME = r"[^\x00-\x20\x7f~^:?*\[\\-][^\x00-\x20\x7f~^:?*\[\\]*"
GitRef = Annotated[str, StringConstraints(pattern=f"^refs/(heads|tags)/{_NAME}$", max_length=255)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=255)]


class PushEvent(Frozen):
    """A branch or tag was moved, according to the host. It is a hint: what is released is read with git."""

    kind: Literal["push"] = "push"
    places: tuple[str, ...] = Field(description="where the repository may be, see `place`")
    ref: str = Field(description="in full, such as refs/heads/main")
    before: str | None = Field(description="the commit it named; None: it is new")
    after: str = Field(description="the commit it names")
    by: str = Field(description="who pushed, as the host calls them")

    @property
    def about(self) -> str:
        """Key: a later event with the same key replaces this one."""
        return self.ref


class PullRequestEvent(Frozen):
    """A pull request, or merge request, was opened, got new commits, or was closed."""

    kind: Literal["pull_request"] = "pull_request"
    places: tuple[str, ...] = Field(description="where the repository that it is for may be")
    number: int
    open: bool
    head: str | None = Field(description="its newest commit")
    ref: str = Field(description="where that is found in the repository that it is for")
    base: str = Field(description="branch it is for")
    fork: bool = Field(description="its commits are from another repository, whose owners may be anybody")
    by: str = Field(description="its author, as the host calls them")
    again: bool = Field(default=False, description="a person asks for it; no host does: start what was started before")

    @property
    def about(self) -> str:
        return f"#{self.number}"


class Ignored(Frozen):
    """An event that Headway does nothing about, with the reason."""

    kind: Literal["ignored"] = "ignored"
    reason: str


Event: TypeAlias = PushEvent | PullRequestEvent | Ignored


def pushed(places: tuple[str, ...], ref: str, before: str, after: str, by: str) -> PushEvent | Ignored:
    """A push as hosts report it: a commit of zeros does not exist."""
    if after == NOTHING:
        return deleted(ref)
    return PushEvent(places=places, ref=ref, before=None if before == NOTHING else before, after=after, by=by)


def deleted(ref: str) -> Ignored:
    """A deleted branch or tag changes nothing that is released."""
    return Ignored(reason=f"{ref} was deleted")
