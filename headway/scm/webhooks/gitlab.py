"""GitLab. https://docs.gitlab.com/user/project/integrations/webhook_events/.

A signing token follows Standard Webhooks; the older secret token is sent in a header as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import PositiveInt

from headway.domain.events import Event, GitRef, Ignored, Line, MergeGroupEvent, PullRequestEvent, Sha, pushed
from headway.scm.repository_url import place
from headway.scm.webhooks.base import EventPayload, Host, Payload, constant_time_equal

__all__ = ["GitLab"]

MERGE_REQUEST_REF = "refs/merge-requests/{number}/head"
TRAIN_REF = r"refs/merge-requests/\d+/train"
WAITING = ("created", "waiting_for_resource", "preparing", "pending", "running")  # states of a pipeline
TOLERANCE = 300.0  # seconds between the clocks; an older delivery may be a replay
PREFIX = "whsec_"  # followed by a key in base64


class Project(Payload):
    git_http_url: Line
    git_ssh_url: Line

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((place(self.git_http_url), place(self.git_ssh_url))))


class User(Payload):
    username: Line


class Push(EventPayload):
    ref: GitRef
    before: Sha
    after: Sha
    project: Project
    user_username: Line | None = None

    def events(self) -> Sequence[Event]:
        return (pushed(self.project.places, self.ref, self.before, self.after, self.user_username or ""),)


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


class Changes(Payload):
    target_branch: object | None = None


class MergeRequest(EventPayload):
    user: User | None = None
    project: Project
    object_attributes: Attributes
    changes: Changes = Changes()

    def events(self) -> Sequence[Event]:
        request = self.object_attributes
        changed = request.action in ("open", "reopen", "close", "merge") or request.oldrev is not None
        if not changed and self.changes.target_branch is None:
            action = request.action or "viewed"
            return (Ignored(reason=f"merge request {request.iid} was {action}: its commits are the same"),)
        return (
            PullRequestEvent(
                places=self.project.places,
                number=request.iid,
                open=request.state in ("opened", "locked"),  # locked: being merged, which may fail
                head=request.last_commit.id,
                ref=MERGE_REQUEST_REF.format(number=request.iid),
                base=request.target_branch,
                fork=request.source_project_id != request.target_project_id,
                by=self.user.username if self.user else "",
            ),
        )


class TrainAttributes(Payload):
    ref: Line
    sha: Sha
    status: Line


class TrainRequest(Payload):
    target_branch: Line


class Pipeline(EventPayload):
    """A pipeline. That of a merge train is how GitLab asks whether the train's commit may be merged."""

    user: User | None = None
    project: Project
    object_attributes: TrainAttributes
    merge_request: TrainRequest | None = None

    def events(self) -> Sequence[Event]:
        pipeline = self.object_attributes
        if not re.fullmatch(TRAIN_REF, pipeline.ref) or self.merge_request is None:
            return (Ignored(reason=f"the pipeline of {pipeline.ref} is not that of a merge train"),)
        if pipeline.status not in WAITING:
            return (Ignored(reason=f"the pipeline of {pipeline.ref} is {pipeline.status}"),)
        return (
            MergeGroupEvent(
                places=self.project.places,
                ref=pipeline.ref,
                head=pipeline.sha,
                base=self.merge_request.target_branch,
                by=self.user.username if self.user else "",
            ),
        )


class GitLab(Host):
    name = "gitlab"
    payloads: ClassVar[Mapping[str, type[EventPayload]]] = {
        "Push Hook": Push,
        "Tag Push Hook": Push,
        "Merge Request Hook": MergeRequest,
        "Pipeline Hook": Pipeline,
    }
    pull_ref = MERGE_REQUEST_REF

    def signed(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        if signatures := headers.get("webhook-signature"):
            return _standard_webhooks_signed(headers, body, secret, signatures)
        token = headers.get("x-gitlab-token")
        return token is not None and constant_time_equal(token, secret)

    def delivery(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("idempotency-key") or headers.get("webhook-id") or headers.get("x-gitlab-event-uuid")

    def event(self, headers: Mapping[str, str]) -> str | None:
        return headers.get("x-gitlab-event")


def _standard_webhooks_signed(headers: Mapping[str, str], body: bytes, secret: str, signatures: str) -> bool:
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
    return any(constant_time_equal(each, expected) for each in signatures.split()[:8])
