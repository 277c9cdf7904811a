"""Any other git server: the post-receive hook that `headway app hook` prints sends this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from headway.domain.events import Event, GitRef, Line, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import EventPayload, Host, hmac_matches

__all__ = ["Generic", "Push"]


class Push(EventPayload):
    """A push. Sign the body with the app's webhook secret in the header `X-Headway-Signature`."""

    repository: Line = Field(description="URL or path of the repository, as the app was registered with")
    ref: GitRef = Field(description="full ref, such as refs/heads/main")
    before: Sha = Field(default="0" * 40, description="commit of the ref before the push; zeros for a new ref")
    after: Sha = Field(description="commit of the ref after the push; zeros for a deleted ref")
    by: Line = Field(default="", description="user who pushed")

    def events(self) -> Sequence[Event]:
        return (pushed((place(self.repository),), self.ref, self.before, self.after, self.by),)


class Generic(Host):
    name = "generic"
    payloads: ClassVar[Mapping[str, type[EventPayload]]] = {"push": Push}

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, headers.get("x-headway-signature"), "sha256=")

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-headway-delivery")

    def event(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-headway-event", "push")
