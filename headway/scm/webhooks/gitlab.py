"""GitLab. https://docs.gitlab.com/user/project/integrations/webhook_events/.

Its signing token is that of Standard Webhooks; the older secret token comes as it is, in a header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import PositiveInt

from headway.domain.events import Event, GitRef, Ignored, Line, PullRequestEvent, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import Host, Payload, same

__all__ = ["GitLab"]

TOLERANCE = 300.0  # seconds between their clock and ours: what is older may be a replay
PREFIX = "whsec_"  # a key after it is in base64


class Project(Payload):
    git_http_url: Line
    git_ssh_url: Line

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((place(self.git_http_url), place(self.git_ssh_url))))


class User(Payload):
    username: Line


class Push(Payload):
    ref: GitRef
    before: Sha
    after: Sha
    project: Project
    user_username: Line = ""

    def event(self) -> Event:
        return pushed(self.project.places, self.ref, self.before, self.after, self.user_username)


class Commit(Payload):
    id: Sha


class Attributes(Payload):
    iid: PositiveInt
    action: Line = ""
    oldrev: Sha | None = None
    state: Literal["opened", "closed", "locked", "merged"]
    last_commit: Commit
    source_project_id: int
    target_project_id: int
    target_branch: Line


class MergeRequest(Payload):
    user: User
    project: Project
    object_attributes: Attributes

    def event(self, ref: str) -> Event:
        request = self.object_attributes
        changed = request.action in ("open", "reopen", "close", "merge") or request.oldrev is not None
        if not changed:
            what = request.action or "looked at"
            return Ignored(reason=f"merge request {request.iid} was {what}: its commits are the same")
        return PullRequestEvent(
            places=self.project.places,
            number=request.iid,
            open=request.state in ("opened", "locked"),  # locked: being merged, which may fail
            head=request.last_commit.id,
            ref=ref.format(number=request.iid),
            base=request.target_branch,
            fork=request.source_project_id != request.target_project_id,
            by=self.user.username,
        )


class GitLab(Host):
    name = "gitlab"
    pull_ref = "refs/merge-requests/{number}/head"

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        if signatures := headers.get("webhook-signature"):
            return _standard(headers, body, secret, signatures)
        token = headers.get("x-gitlab-token")
        return token is not None and same(token, secret)

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("idempotency-key") or headers.get("webhook-id") or headers.get("x-gitlab-event-uuid")

    def events(self, headers: Mapping[str, str], body: bytes) -> Sequence[Event]:
        match headers.get("x-gitlab-event"):
            case "Push Hook" | "Tag Push Hook":
                return (Push.model_validate_json(body).event(),)
            case "Merge Request Hook":
                return (MergeRequest.model_validate_json(body).event(self.pull_ref),)
            case other:
                return (Ignored(reason=f"{other or 'no event'}: nothing starts on it"),)


def _standard(headers: Mapping[str, str], body: bytes, secret: str, signatures: str) -> bool:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md."""
    sent = headers.get("webhook-timestamp", "")
    if not sent.isascii() or not sent.isdecimal() or len(sent) > 12 or abs(time.time() - int(sent)) > TOLERANCE:
        return False
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True) if PREFIX in secret else secret.encode()
    except binascii.Error:
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(same(each, expected) for each in signatures.split()[:8])
