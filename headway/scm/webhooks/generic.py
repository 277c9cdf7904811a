"""Any other git server: what `headway app hook` prints to be its post-receive hook sends this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from headway.domain.events import Event, GitRef, Ignored, Line, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import Host, Payload, hmac_matches

__all__ = ["Generic", "Push"]


class Push(Payload):
    """A push, as anybody may write it. Signed with the app's secret, in the header `X-Headway-Signature`."""

    repository: Line = Field(description="URL or path of the repository, as it was registered")
    ref: GitRef = Field(description="in full, such as refs/heads/main")
    before: Sha = Field(default="0" * 40, description="the commit it named before; zeros: it is new")
    after: Sha = Field(description="the commit it names now; zeros: it was deleted")
    by: Line = Field(default="", description="who pushed")

    def event(self) -> Event:
        return pushed((place(self.repository),), self.ref, self.before, self.after, self.by)


class Generic(Host):
    name = "generic"

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, headers.get("x-headway-signature"), "sha256=")

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-headway-delivery")

    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        match headers.get("x-headway-event", "push"):
            case "push":
                return (Push.model_validate_json(body).event(),)
            case other:
                return (Ignored(reason=f"{other}: nothing starts on it"),)
