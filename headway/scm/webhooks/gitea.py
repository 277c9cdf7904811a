"""Gitea and Forgejo: GitHub's payloads with other headers. https://docs.gitea.com/usage/webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from headway.scm.webhooks.base import EventPayload, Host, hmac_matches
from headway.scm.webhooks.github import PULL_REF, PullRequest, Push

__all__ = ["Gitea"]


class Gitea(Host):
    name = "gitea"
    payloads: ClassVar[Mapping[str, type[EventPayload]]] = {
        "push": Push,
        "pull_request": PullRequest,
        "pull_request_sync": PullRequest,
    }
    pull_ref = PULL_REF

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, _header(headers, "signature"))

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return _header(headers, "delivery")

    def event(self, headers: Mapping[str, str]) -> str | None:
        return _header(headers, "event")


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(f"x-gitea-{name}") or headers.get(f"x-forgejo-{name}")
