"""Bitbucket Cloud. https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/.

Bitbucket Data Center sends other events to the same address, see `bitbucket_data_center`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, StringConstraints, TypeAdapter

from headway.domain.events import Event, GitRef, Ignored, Line, PullRequestEvent, PushEvent, deleted
from headway.scm.webhooks import bitbucket_data_center as data_center
from headway.scm.webhooks.base import EventPayload, Host, Payload, hmac_matches

__all__ = ["Bitbucket"]

FULL_REF: TypeAdapter[str] = TypeAdapter(GitRef)
KINDS = {"branch": "refs/heads", "named_branch": "refs/heads", "bookmark": "refs/heads", "tag": "refs/tags"}
OPEN = ("OPEN", "DRAFT")
ShortSha = Annotated[str, StringConstraints(pattern="^[0-9a-f]{7,40}$")]  # pull requests have 12 characters


class Repository(Payload):
    full_name: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$", max_length=255)]

    @property
    def places(self) -> tuple[str, ...]:
        return (f"bitbucket.org/{self.full_name}".casefold(),)


class Actor(Payload):
    nickname: Line = ""
    display_name: Line = ""

    @property
    def name(self) -> str:
        return self.nickname or self.display_name


class Commit(Payload):
    hash: ShortSha


class Tip(Payload):
    type: Literal["branch", "named_branch", "bookmark", "tag"]
    name: Line
    target: Commit

    @property
    def ref(self) -> str:
        return FULL_REF.validate_python(f"{KINDS[self.type]}/{self.name}")


class Change(Payload):
    new: Tip | None = None
    old: Tip | None = None


class Changes(Payload):
    changes: tuple[Change, ...] = Field(max_length=1000)


class Push(EventPayload):
    push: Changes
    repository: Repository
    actor: Actor | None = None  # None for an account that was deleted

    def events(self) -> Sequence[Event]:
        return [self._event(change) for change in self.push.changes]

    def _event(self, change: Change) -> Event:
        if change.new is None:
            return deleted(change.old.ref) if change.old else Ignored(reason="a push without changes")
        return PushEvent(
            places=self.repository.places,
            ref=change.new.ref,
            before=change.old.target.hash if change.old else None,
            after=change.new.target.hash,
            by=self.actor.name if self.actor else "",
        )


class Branch(Payload):
    name: Line


class Side(Payload):
    commit: Commit | None = None
    branch: Branch
    repository: Repository | None = None  # None after the fork was deleted


class Pull(Payload):
    id: PositiveInt
    state: Line
    source: Side
    destination: Side
    author: Actor | None = None


class PullRequest(EventPayload):
    pullrequest: Pull
    repository: Repository

    def events(self) -> Sequence[Event]:
        pull = self.pullrequest
        head_repository = pull.source.repository.places if pull.source.repository else ()
        return (
            PullRequestEvent(
                places=self.repository.places,
                number=pull.id,
                open=pull.state in OPEN,
                head=pull.source.commit.hash if pull.source.commit else None,
                ref=FULL_REF.validate_python(f"refs/heads/{pull.source.branch.name}"),
                base=pull.destination.branch.name,
                fork=head_repository != self.repository.places,
                by=pull.author.name if pull.author else "",
            ),
        )


class Bitbucket(Host):
    name = "bitbucket"
    payloads: ClassVar[Mapping[str, type[EventPayload]]] = {
        "repo:push": Push,
        "pullrequest:created": PullRequest,
        "pullrequest:updated": PullRequest,
        "pullrequest:fulfilled": PullRequest,
        "pullrequest:rejected": PullRequest,
        **data_center.PAYLOADS,
    }

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, headers.get("x-hub-signature"), "sha256=")

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-request-uuid") or headers.get("x-request-id")

    def event(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-event-key")
