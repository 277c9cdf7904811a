"""GitHub, its Enterprise Server too. https://docs.github.com/en/webhooks/webhook-events-and-payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import PositiveInt

from headway.domain.events import Event, GitRef, Ignored, Line, PullRequestEvent, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import Host, Payload, hmac_matches

__all__ = ["GitHub", "PullRequest", "Push"]

NEW_COMMITS = ("opened", "reopened", "synchronize", "synchronized", "ready_for_review")


class Repository(Payload):
    clone_url: Line
    ssh_url: Line

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((place(self.clone_url), place(self.ssh_url))))


class User(Payload):
    login: Line


class Push(Payload):
    ref: GitRef
    before: Sha
    after: Sha
    repository: Repository
    sender: User

    def event(self) -> Event:
        return pushed(self.repository.places, self.ref, self.before, self.after, self.sender.login)


class Head(Payload):
    sha: Sha
    repo: Repository | None  # none when the fork was deleted


class Base(Payload):
    ref: Line
    repo: Repository


class Pull(Payload):
    number: PositiveInt
    state: Literal["open", "closed"]
    head: Head
    base: Base
    user: User


class PullRequest(Payload):
    action: Line
    pull_request: Pull

    def event(self, ref: str) -> Event:
        pull = self.pull_request
        if self.action not in (*NEW_COMMITS, "closed"):
            return Ignored(reason=f"pull request {pull.number} was {self.action}: its commits are the same")
        theirs = pull.head.repo.places if pull.head.repo else ()
        return PullRequestEvent(
            places=pull.base.repo.places,
            number=pull.number,
            open=pull.state == "open",
            head=pull.head.sha,
            ref=ref.format(number=pull.number),
            base=pull.base.ref,
            fork=theirs != pull.base.repo.places,
            by=pull.user.login,
        )


class GitHub(Host):
    name = "github"
    pull_ref: ClassVar[str] = "refs/pull/{number}/head"

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, headers.get("x-hub-signature-256"), "sha256=")

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-github-delivery")

    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        match headers.get("x-github-event"):
            case "push":
                return (Push.model_validate_json(body).event(),)
            case "pull_request":
                return (PullRequest.model_validate_json(body).event(self.pull_ref),)
            case "merge_group":
                return (Ignored(reason="a merge queue's commit is released when it has been merged"),)
            case other:
                return (Ignored(reason=f"{other or 'no event'}: nothing starts on it"),)
