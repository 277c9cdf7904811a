"""Base classes of the git hosts' webhooks."""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from headway.domain.events import Event, Ignored

__all__ = ["EventPayload", "Host", "Payload", "constant_time_equal", "hmac_matches"]


class Payload(BaseModel):
    """The part of a payload that Headway reads. Other fields are ignored, so that hosts can change them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EventPayload(Payload, ABC):
    """The body of a delivery."""

    @abstractmethod
    def events(self) -> Sequence[Event]:
        """What happened, in Headway's terms."""


class Host(ABC):
    """Verifies and reads the deliveries of one kind of git host. Header names are in lower case."""

    name: ClassVar[str]
    payloads: ClassVar[Mapping[str, type[EventPayload]]]
    """Name of an event in the host's headers -> its payload. All other events are ignored."""
    pull_ref: ClassVar[str | None] = None
    """Ref of the commits of pull request `{number}` in the base repository; None if the host has no such refs."""

    @abstractmethod
    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Whether the sender knows the secret, compared in constant time."""

    @abstractmethod
    def delivery(self, headers: Mapping[str, str]) -> str | None:
        """ID of the delivery, the same when the host sends it again; None if the host sent none."""

    @abstractmethod
    def event(self, headers: Mapping[str, str]) -> str | None:
        """Name of the event."""

    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        """Read a verified body. Raises pydantic.ValidationError when it does not match the payload of its event."""
        name = self.event(headers)
        payload = self.payloads.get(name or "")
        if payload is None:
            return (Ignored(reason=f"{name or 'a delivery without an event'}: starts nothing"),)
        return payload.model_validate_json(body).events()


def hmac_matches(body: bytes, secret: str, given: str | None, prefix: str = "") -> bool:
    """Whether `given` is the prefix and the HMAC-SHA256 of the body, in hex."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return given is not None and constant_time_equal(given, prefix + expected)


def constant_time_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
