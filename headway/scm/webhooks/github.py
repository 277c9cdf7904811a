"""GitHub, its Enterprise Server too. https://docs.github.com/en/webhooks/webhook-events-and-payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import PositiveInt, StringConstraints

from headway.domain.events import Event, GitRef, Ignored, Line, MergeGroupEvent, PullRequestEvent, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import EventPayload, Host, Payload, hmac_matches

__all__ = ["PULL_REF", "GitHub", "PullRequest", "Push"]

PULL_REF = "refs/pull/{number}/head"

NEW_COMMITS = ("opened", "reopened", "synchronize", "synchronized", "ready_for_review")


class Repository(Payload):
    clone_url: Line
    ssh_url: Line

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((place(self.clone_url), place(self.ssh_url))))


class User(Payload):
    login: Line


def _login(user: User | None) -> str:
    """Name of a user; empty for an account that was deleted."""
    return user.login if user else ""


class Push(EventPayload):
    ref: GitRef
    before: Sha
    after: Sha
    repository: Repository
    sender: User | None = None

    def events(self) -> Sequence[Event]:
        return (pushed(self.repository.places, self.ref, self.before, self.after, _login(self.sender)),)


class Head(Payload):
    sha: Sha
    repo: Repository | None  # None after the fork was deleted


class Base(Payload):
    ref: Line
    repo: Repository


class Pull(Payload):
    number: PositiveInt
    state: Literal["open", "closed"]
    head: Head
    base: Base
    user: User | None = None


class Changes(Payload):
    """What an edit changed. The base branch is called `base` at GitHub, `ref` at Gitea."""

    base: object | None = None
    ref: object | None = None


class PullRequest(EventPayload):
    action: Line
    pull_request: Pull
    changes: Changes = Changes()

    def events(self) -> Sequence[Event]:
        pull = self.pull_request
        retargeted = self.action == "edited" and (self.changes.base or self.changes.ref)
        if self.action not in (*NEW_COMMITS, "closed") and not retargeted:
            return (Ignored(reason=f"pull request {pull.number} was {self.action}: its commits are the same"),)
        head_repository = pull.head.repo.places if pull.head.repo else ()
        return (
            PullRequestEvent(
                places=pull.base.repo.places,
                number=pull.number,
                open=pull.state == "open",
                head=pull.head.sha,
                ref=PULL_REF.format(number=pull.number),
                base=pull.base.ref,
                fork=head_repository != pull.base.repo.places,
                by=_login(pull.user),
            ),
        )


class Group(Payload):
    head_sha: Sha
    head_ref: Annotated[str, StringConstraints(pattern=r"^refs/heads/[^\x00-\x20\x7f]+$", max_length=255)]
    base_ref: GitRef


class MergeGroup(EventPayload):
    action: Line
    merge_group: Group
    repository: Repository
    sender: User | None = None

    def events(self) -> Sequence[Event]:
        group = self.merge_group
        if self.action != "checks_requested":
            return (Ignored(reason=f"merge group {group.head_ref} was {self.action}"),)
        return (
            MergeGroupEvent(
                places=self.repository.places,
                ref=group.head_ref,
                head=group.head_sha,
                base=group.base_ref.removeprefix("refs/heads/"),
                by=_login(self.sender),
            ),
        )


class GitHub(Host):
    name = "github"
    payloads: ClassVar[Mapping[str, type[EventPayload]]] = {
        "push": Push,
        "pull_request": PullRequest,
        "merge_group": MergeGroup,
    }
    pull_ref = PULL_REF

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, headers.get("x-hub-signature-256"), "sha256=")

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-github-delivery")

    def event(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-github-event")
