"""Who sends a request: a person with a session, or an API token. And whether a browser sends it for another site."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from fastapi import Request

from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.service.api.responses import RequestRefused
from headway.system.origin import LISTEN, URL

__all__ = ["Caller", "Site", "caller"]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Caller:
    """An authenticated principal; for a person in a browser, with the secret of the session."""

    principal: Principal
    session: str = ""

    @property
    def csrf_token(self) -> str:
        """For the forms of our pages: a page of another site cannot know it."""
        return hmac.new(self.session.encode(), b"csrf", hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Site:
    """The origins under which people may sign in: the public URL, and the names of this machine."""

    url: str
    hosts: frozenset[str]

    @classmethod
    def of_environment(cls) -> Site:
        """From HEADWAY_URL and HEADWAY_LISTEN, which `headway up` sets."""
        url = os.environ.get(URL, "").rstrip("/")
        _, _, port = os.environ.get(LISTEN, "").rpartition(":")
        names = {f"{name}:{port}" for name in LOOPBACK} | {urlsplit(url).netloc}
        return cls(url, frozenset(names - {""}))

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")

    @property
    def cookie(self) -> str:
        """With TLS, browsers refuse it from other hosts of the domain (RFC 6265bis, 4.1.3.2)."""
        return "__Host-headway-session" if self.secure else "headway-session"

    def require_host(self, headers: Mapping[str, str]) -> None:
        """Raise RequestRefused for another name of this machine: one that its owner made point here, for example."""
        host = headers.get("host", "")
        if host not in self.hosts:
            raise RequestRefused(
                421, f"nobody signs in to the host {host[:100]!r}", f"use {self.url}, or set {URL} to the address"
            )

    def require_same_origin(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise RequestRefused when a page of another site sends a request that changes something, or opens a stream.

        Browsers say so in Origin or Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/).
        """
        if method in SAFE and headers.get("upgrade", "").lower() != "websocket":
            return
        origin = headers.get("origin")
        same = urlsplit(origin).netloc == headers.get("host") if origin else None
        if same is None:
            same = headers.get("sec-fetch-site") in ("same-origin", "none")
        if not same:
            raise RequestRefused(403, "another site sent this request", "send it from Headway's own pages")


async def caller(request: Request, ledger: Ledger, site: Site) -> Caller | None:
    """Who sends the request; None for nobody. Raises RequestRefused when a browser sends it for another site."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        principal = await asyncio.to_thread(ledger.tokens.authenticate, token.strip(), datetime.now(UTC))
        return Caller(principal) if principal else None
    session = request.cookies.get(site.cookie)
    if not session:
        return None
    site.require_host(request.headers)
    site.require_same_origin(request.method, request.headers)
    person = await asyncio.to_thread(ledger.sessions.person, session)
    return Caller(person, session) if person else None
