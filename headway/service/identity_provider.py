"""The identity provider (OpenID Connect): its settings, and the user that its claims are about."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from headway.domain.errors import UsageError
from headway.domain.principal import Principal
from headway.domain.refusal import Refusal
from headway.service.door.process import is_loopback

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "IdentityProvider"]

ISSUER = "HEADWAY_OIDC_ISSUER"
CLIENT_ID = "HEADWAY_OIDC_CLIENT_ID"
NAME_CLAIM = "HEADWAY_OIDC_NAME_CLAIM"
GROUPS_CLAIM = "HEADWAY_OIDC_GROUPS_CLAIM"
CLIENT_SECRET = "headway-oidc-client-secret"  # noqa: S105 - the name under which the secret store has it

EMAIL, VERIFIED = "email", "email_verified"
LONGEST_NAME = 254  # of an e-mail address (RFC 5321, 4.5.3.1)
GROUPS = 1000  # at most, of one person


@dataclass(frozen=True)
class IdentityProvider:
    """Where people sign in, and which claims say who they are."""

    issuer: str
    client_id: str
    name_claim: str = EMAIL
    groups_claim: str = "groups"

    @classmethod
    def of_environment(cls) -> IdentityProvider | None:
        """From the variables HEADWAY_OIDC_*; None when none is set. Sends no request. Raises UsageError."""
        values = {
            name: os.environ[name].strip()
            for name in (ISSUER, CLIENT_ID, NAME_CLAIM, GROUPS_CLAIM)
            if name in os.environ
        }
        if not values:
            return None
        for name in (ISSUER, CLIENT_ID):
            if not values.get(name):
                raise UsageError(
                    f"{name} is not set, but {', '.join(sorted(values))}", f"set {ISSUER} and {CLIENT_ID}, or neither"
                )
        for name, value in values.items():
            if not value or not value.isprintable():
                raise UsageError(
                    f"{name}={value!r}: it is empty, or has a control character", f"set {name}, or remove it"
                )
        _require_url(values[ISSUER])
        claims = {"name_claim": values.get(NAME_CLAIM), "groups_claim": values.get(GROUPS_CLAIM)}
        return cls(values[ISSUER], values[CLIENT_ID], **{field: claim for field, claim in claims.items() if claim})

    def user(self, claims: Mapping[str, Any], is_local: Callable[[str], bool]) -> Principal | Refusal:
        """The user that the claims are about; a Refusal when the name may be somebody else's.

        A name has an `@`, so that it is not one of the operating system's users; `is_local` finds those whose names
        have one too. People can choose an unverified e-mail address themselves. The groups are not part of the user:
        the ledger has those of the last sign-in, for every session and token of the user.
        """
        name = claims.get(self.name_claim)
        if not isinstance(name, str) or not name:
            return Refusal(
                f"the identity provider sends no claim {self.name_claim!r} with a name",
                f"release this claim to Headway, or set {NAME_CLAIM}",
            )
        if self.name_claim == EMAIL and claims.get(VERIFIED) not in (True, "true"):
            hint = f"verify it there, or choose a claim that only administrators can set with {NAME_CLAIM}"
            return Refusal(f"the identity provider has not verified the e-mail address {name[:LONGEST_NAME]!r}", hint)
        if not _is_like_an_address(name):
            hint = f"choose a claim such as ann@example.com with {NAME_CLAIM}"
            return Refusal(f"{self.name_claim} {name[:LONGEST_NAME]!r} is not like an e-mail address", hint)
        if is_local(name):
            return Refusal(
                f"{name} is a user of the machine that Headway runs on",
                f"sign in there with headway open, or choose another claim with {NAME_CLAIM}",
            )
        try:
            return Principal(kind="user", name=name)
        except ValidationError as error:
            return Refusal(
                error.errors()[0]["msg"].removeprefix("Value error, "), f"choose another claim with {NAME_CLAIM}"
            )

    def groups(self, claims: Mapping[str, Any]) -> tuple[str, ...] | Refusal:
        """Names of the user's groups; a Refusal when the claim has another type."""
        named = claims.get(self.groups_claim)
        names = [named] if isinstance(named, str) else [] if named is None else named
        if not isinstance(names, list) or len(names) > GROUPS or not all(_is_group(name) for name in names):
            return Refusal(
                f"the claim {self.groups_claim!r} is not a list of at most {GROUPS} names",
                f"choose another claim with {GROUPS_CLAIM}",
            )
        return tuple(sorted(set(names)))


def _is_like_an_address(name: str) -> bool:
    local, _, domain = name.rpartition("@")
    plain = name.isascii() and name.isprintable() and " " not in name
    return bool(local and domain) and plain and len(name) <= LONGEST_NAME


def _is_group(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _require_url(issuer: str) -> None:
    """Raise UsageError unless it is an address with TLS, or of this machine."""
    url = urlsplit(issuer)
    secure = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
    if not secure or not url.hostname or url.query or url.fragment or url.username:
        raise UsageError(
            f"{ISSUER}={issuer!r} is not an https:// address without a query",
            "take the value of `issuer` from ISSUER/.well-known/openid-configuration",
        )
