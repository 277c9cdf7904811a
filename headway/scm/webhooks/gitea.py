"""Gitea and Forgejo: nearly GitHub's payloads, with headers of their own. https://docs.gitea.com/usage/webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headway.domain.events import Event, Ignored
from headway.scm.webhooks.base import Host, hmac_matches
from headway.scm.webhooks.github import PullRequest, Push

__all__ = ["Gitea"]


class Gitea(Host):
    name = "gitea"
    pull_ref = "refs/pull/{number}/head"

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        return hmac_matches(body, secret, _header(headers, "signature"))

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return _header(headers, "delivery")

    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        match _header(headers, "event"):
            case "push":
                return (Push.model_validate_json(body).event(),)
            case "pull_request" | "pull_request_sync":
                return (PullRequest.model_validate_json(body).event(self.pull_ref),)
            case other:
                return (Ignored(reason=f"{other or 'no event'}: nothing starts on it"),)


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(f"x-gitea-{name}") or headers.get(f"x-forgejo-{name}")
