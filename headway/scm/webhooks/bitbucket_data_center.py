"""Bitbucket Data Center. https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, PositiveInt

from headway.domain.events import Event, GitRef, Ignored, Line, PullRequestEvent, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import EventPayload, Payload

__all__ = ["PAYLOADS"]

PULL_REF = "refs/pull-requests/{number}/from"


class Link(Payload):
    href: Line


class Links(Payload):
    clone: tuple[Link, ...] = Field(min_length=1)


class Repository(Payload):
    links: Links

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place(link.href) for link in self.links.clone))


class User(Payload):
    name: Line = ""


class Ref(Payload):
    id: GitRef


class Change(Payload):
    ref: Ref
    fromHash: Sha  # noqa: N815  # as it is sent
    toHash: Sha  # noqa: N815


class Push(EventPayload):
    repository: Repository
    actor: User | None = None
    changes: tuple[Change, ...] = Field(max_length=1000)

    def events(self) -> Sequence[Event]:
        by = self.actor.name if self.actor else ""
        return [pushed(self.repository.places, one.ref.id, one.fromHash, one.toHash, by) for one in self.changes]


class Side(Payload):
    id: GitRef
    latestCommit: Sha  # noqa: N815
    repository: Repository


class Author(Payload):
    user: User


class Pull(Payload):
    id: PositiveInt
    state: Line
    fromRef: Side  # noqa: N815
    toRef: Side  # noqa: N815
    author: Author | None = None


class PullRequest(EventPayload):
    pullRequest: Pull  # noqa: N815

    def events(self) -> Sequence[Event]:
        pull = self.pullRequest
        return (
            PullRequestEvent(
                places=pull.toRef.repository.places,
                number=pull.id,
                open=pull.state == "OPEN",
                head=pull.fromRef.latestCommit,
                ref=PULL_REF.format(number=pull.id),
                base=pull.toRef.id.removeprefix("refs/heads/"),
                fork=pull.fromRef.repository.places != pull.toRef.repository.places,
                by=pull.author.user.name if pull.author else "",
            ),
        )


class ConnectionTest(EventPayload):
    test: bool

    def events(self) -> Sequence[Event]:
        return (Ignored(reason="a test of the connection"),)


PAYLOADS: Mapping[str, type[EventPayload]] = {
    "repo:refs_changed": Push,
    "pr:opened": PullRequest,
    "pr:from_ref_updated": PullRequest,
    "pr:modified": PullRequest,  # another title or base branch
    "pr:merged": PullRequest,
    "pr:declined": PullRequest,
    "pr:deleted": PullRequest,
    "diagnostics:ping": ConnectionTest,
}
"""Event -> its payload."""
