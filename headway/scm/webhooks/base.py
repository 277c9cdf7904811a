"""A kind of git host as far as its webhooks go."""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from headway.domain.events import Event

__all__ = ["Host", "Payload", "hmac_matches", "same"]


class Payload(BaseModel):
    """The part of a host's payload that is read; the rest may change as the host likes."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Host(ABC):
    """Reads one kind of host's deliveries. Header names are asked for in lower case."""

    name: ClassVar[str]
    pull_ref: ClassVar[str | None] = None
    """Where the commits of pull request `{number}` are in the repository that it is for."""

    @abstractmethod
    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Whether whoever sent these very bytes knows the secret, found out in constant time."""

    @abstractmethod
    def delivery(self, headers: Mapping[str, str]) -> str | None:
        """What the host calls this delivery, the same when it sends it again; None when it does not say."""

    @abstractmethod
    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        """What a body that is signed says. Raises pydantic.ValidationError when it is not what the host sends."""


def hmac_matches(body: bytes, secret: str, given: str | None, prefix: str = "") -> bool:
    """Whether `given` is the prefix and the HMAC-SHA256 of the body, in hex."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return given is not None and same(given, prefix + expected)


def same(one: str, other: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
