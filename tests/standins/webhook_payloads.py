"""Payloads of each git host, reduced to the documented parts that Headway reads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, NamedTuple

OLD, NEW, ZEROS = "1" * 40, "2" * 40, "0" * 40
SECRET = "It's a secret to everybody"


class Sent(NamedTuple):
    """A delivery as it comes in."""

    headers: dict[str, str]
    body: bytes


def _hex(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# --- GitHub ----------------------------------------------------------------------------------------------------

GITHUB_REPOSITORY = {
    "id": 1,
    "full_name": "Acme/shop",
    "private": True,
    "clone_url": "https://github.com/Acme/shop.git",
    "ssh_url": "git@github.com:Acme/shop.git",
    "default_branch": "main",
}


def github(event: str, payload: dict[str, Any], secret: str = SECRET, delivery: str = "guid-1") -> Sent:
    body = json.dumps(payload).encode()
    signed = {"x-hub-signature-256": f"sha256={_hex(body, secret)}", "x-hub-signature": "sha1=0"}
    return Sent({"x-github-event": event, "x-github-delivery": delivery, **signed}, body)


def github_push(ref: str = "refs/heads/main", before: str = OLD, after: str = NEW, **changes: Any) -> dict[str, Any]:
    return {
        "ref": ref,
        "before": before,
        "after": after,
        "created": before == ZEROS,
        "deleted": after == ZEROS,
        "forced": False,
        "base_ref": None,
        "compare": "https://github.com/acme/shop/compare/111111111111...222222222222",
        "commits": [],
        "head_commit": None if after == ZEROS else {"id": after, "message": "change"},
        "repository": GITHUB_REPOSITORY,
        "pusher": {"name": "ann", "email": "ann@example.com"},
        "sender": {"login": "ann", "id": 2, "type": "User"},
        **changes,
    }


def github_pull(action: str, *, fork: str | None = None, state: str = "open") -> dict[str, Any]:
    theirs = GITHUB_REPOSITORY
    if fork:
        theirs = theirs | {
            "clone_url": f"https://github.com/{fork}/shop.git",
            "ssh_url": f"git@github.com:{fork}/shop.git",
        }
    return {
        "action": action,
        "number": 42,
        "pull_request": {
            "number": 42,
            "state": state,
            "merged": state == "closed",
            "head": {"ref": "feature", "sha": NEW, "repo": theirs},
            "base": {"ref": "main", "sha": OLD, "repo": GITHUB_REPOSITORY},
            "user": {"login": "bob"},
        },
        "repository": GITHUB_REPOSITORY,
        "sender": {"login": "bob"},
    }


def github_retargeted(changes: dict[str, Any]) -> dict[str, Any]:
    return {**github_pull("edited"), "changes": changes}


def github_merge_group(action: str = "checks_requested") -> dict[str, Any]:
    return {
        "action": action,
        "merge_group": {
            "head_sha": NEW,
            "head_ref": f"refs/heads/gh-readonly-queue/main/pr-42-{OLD}",
            "base_sha": OLD,
            "base_ref": "refs/heads/main",
            "head_commit": {"id": NEW, "tree_id": OLD, "message": "Merge pull request #42"},
        },
        "repository": GITHUB_REPOSITORY,
        "sender": {"login": "ann", "id": 2, "type": "User"},
    }


# --- Gitea and Forgejo -----------------------------------------------------------------------------------------

GITEA_REPOSITORY = {
    "id": 7,
    "full_name": "acme/shop",
    "clone_url": "https://git.example.com/acme/shop.git",
    "ssh_url": "ssh://git@git.example.com:2222/acme/shop.git",
}


def gitea(event: str, payload: dict[str, Any], secret: str = SECRET, brand: str = "gitea") -> Sent:
    body = json.dumps(payload).encode()
    signed = _hex(body, secret)
    ours = {f"x-{brand}-event": event, f"x-{brand}-delivery": "guid-2", f"x-{brand}-signature": signed}
    like_github = {"x-github-event": event, "x-github-delivery": "guid-2", "x-hub-signature-256": f"sha256={signed}"}
    return Sent(ours | like_github, body)


def gitea_push(ref: str = "refs/heads/main", before: str = OLD, after: str = NEW) -> dict[str, Any]:
    return {
        "ref": ref,
        "before": before,
        "after": after,
        "commits": [],
        "repository": GITEA_REPOSITORY,
        "pusher": {"login": "ann"},
        "sender": {"login": "ann"},
    }


def gitea_pull(action: str, state: str = "open") -> dict[str, Any]:
    return {
        "action": action,
        "number": 42,
        "pull_request": {
            "number": 42,
            "state": state,
            "user": {"login": "bob"},
            "head": {"ref": "feature", "sha": NEW, "repo": GITEA_REPOSITORY},
            "base": {"ref": "main", "sha": OLD, "repo": GITEA_REPOSITORY},
        },
        "repository": GITEA_REPOSITORY,
        "sender": {"login": "bob"},
    }


# --- GitLab ----------------------------------------------------------------------------------------------------

GITLAB_PROJECT = {
    "id": 15,
    "path_with_namespace": "acme/tools/shop",
    "git_http_url": "https://gitlab.com/acme/tools/shop.git",
    "git_ssh_url": "git@gitlab.com:acme/tools/shop.git",
}


def gitlab(event: str, payload: dict[str, Any], secret: str = SECRET) -> Sent:
    headers = {"x-gitlab-event": event, "x-gitlab-event-uuid": "another each time", "idempotency-key": "guid-3"}
    return Sent(headers | {"x-gitlab-token": secret}, json.dumps(payload).encode())


def gitlab_signed(event: str, payload: dict[str, Any], secret: str, at: float | None = None) -> Sent:
    """With a signing token, as Standard Webhooks says."""
    body = json.dumps(payload).encode()
    sent = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, b"msg_1." + sent.encode() + b"." + body, hashlib.sha256).digest()
    headers = {
        "x-gitlab-event": event,
        "webhook-id": "msg_1",
        "webhook-timestamp": sent,
        "webhook-signature": f"v1,{base64.b64encode(b'x' * 32).decode()} v1,{base64.b64encode(signed).decode()}",
    }
    return Sent(headers, body)


def gitlab_push(ref: str = "refs/heads/main", before: str = OLD, after: str = NEW) -> dict[str, Any]:
    return {
        "object_kind": "tag_push" if ref.startswith("refs/tags/") else "push",
        "before": before,
        "after": after,
        "ref": ref,
        "ref_protected": True,
        "checkout_sha": None if after == ZEROS else after,
        "user_username": "ann",
        "project": GITLAB_PROJECT,
        "commits": [],
        "total_commits_count": 1,
    }


def gitlab_pipeline(ref: str = "refs/merge-requests/42/train", status: str = "pending") -> dict[str, Any]:
    return {
        "object_kind": "pipeline",
        "object_attributes": {
            "id": 31,
            "iid": 3,
            "ref": ref,
            "tag": False,
            "sha": NEW,
            "before_sha": ZEROS,
            "source": "merge_request_event",
            "status": status,
        },
        "merge_request": {"id": 1, "iid": 42, "source_branch": "feature", "target_branch": "main", "state": "opened"},
        "user": {"id": 1, "name": "Ann", "username": "ann"},
        "project": GITLAB_PROJECT,
        "builds": [],
    }


def gitlab_merge(action: str, *, oldrev: str | None = None, state: str = "opened", source: int = 15) -> dict[str, Any]:
    attributes = {
        "iid": 42,
        "action": action,
        "state": state,
        "source_branch": "feature",
        "target_branch": "main",
        "source_project_id": source,
        "target_project_id": 15,
        "last_commit": {"id": NEW, "message": "change"},
    } | ({"oldrev": oldrev} if oldrev else {})
    return {
        "object_kind": "merge_request",
        "user": {"username": "bob"},
        "project": GITLAB_PROJECT,
        "object_attributes": attributes,
    }


# --- Bitbucket -------------------------------------------------------------------------------------------------

BITBUCKET_REPOSITORY = {"type": "repository", "full_name": "acme/shop", "uuid": "{1}"}


def bitbucket(event: str, payload: dict[str, Any], secret: str = SECRET) -> Sent:
    body = json.dumps(payload).encode()
    headers = {"x-event-key": event, "x-hook-uuid": "{h}", "x-request-uuid": "{r}", "x-attempt-number": "1"}
    return Sent(headers | {"x-hub-signature": f"sha256={_hex(body, secret)}"}, body)


def _tip(name: str, sha: str, kind: str = "branch") -> dict[str, Any]:
    return {"type": kind, "name": name, "target": {"type": "commit", "hash": sha}}


def bitbucket_push() -> dict[str, Any]:
    """One push of a branch, a new tag, and a branch that is deleted."""
    changes = [
        {"new": _tip("main", NEW), "old": _tip("main", OLD), "created": False, "closed": False, "forced": False},
        {"new": _tip("v1", NEW, "tag"), "old": None, "created": True},
        {"new": None, "old": _tip("gone", OLD), "closed": True},
    ]
    actor = {"type": "user", "nickname": "ann", "display_name": "Ann"}
    return {"push": {"changes": changes}, "repository": BITBUCKET_REPOSITORY, "actor": actor}


def bitbucket_pull(state: str = "OPEN", fork: str = "acme/shop") -> dict[str, Any]:
    return {
        "pullrequest": {
            "id": 42,
            "state": state,
            "author": {"nickname": "bob"},
            "source": {
                "branch": {"name": "feature"},
                "commit": {"hash": NEW[:12]},
                "repository": {"full_name": fork},
            },
            "destination": {"branch": {"name": "main"}, "commit": {"hash": OLD[:12]}},
        },
        "repository": BITBUCKET_REPOSITORY,
        "actor": {"nickname": "bob"},
    }


# --- any other -------------------------------------------------------------------------------------------------


def generic(payload: dict[str, Any], secret: str = SECRET, delivery: str = "guid-5", event: str = "push") -> Sent:
    body = json.dumps(payload).encode()
    headers = {"x-headway-event": event, "x-headway-delivery": delivery}
    return Sent(headers | {"x-headway-signature": f"sha256={_hex(body, secret)}"}, body)


DATA_CENTER_REPOSITORY = {
    "slug": "shop",
    "id": 84,
    "project": {"key": "ACME", "id": 8},
    "links": {
        "clone": [
            {"href": "https://git.example.com/scm/acme/shop.git", "name": "http"},
            {"href": "ssh://git@git.example.com:7999/acme/shop.git", "name": "ssh"},
        ],
        "self": [{"href": "https://git.example.com/projects/ACME/repos/shop/browse"}],
    },
}


def data_center_push() -> dict[str, Any]:
    refs = [("refs/heads/main", OLD, NEW), ("refs/tags/v1", ZEROS, NEW), ("refs/heads/gone", OLD, ZEROS)]
    return {
        "eventKey": "repo:refs_changed",
        "date": "2026-09-13T11:39:30+1000",
        "actor": {"name": "ann", "id": 1, "displayName": "Ann"},
        "repository": DATA_CENTER_REPOSITORY,
        "changes": [
            {"ref": {"id": ref, "type": "BRANCH"}, "refId": ref, "fromHash": old, "toHash": new, "type": "UPDATE"}
            for ref, old, new in refs
        ],
    }


def data_center_pull(state: str = "OPEN") -> dict[str, Any]:
    return {
        "eventKey": "pr:opened",
        "actor": {"name": "ann"},
        "pullRequest": {
            "id": 42,
            "state": state,
            "fromRef": {"id": "refs/heads/feature", "latestCommit": NEW, "repository": DATA_CENTER_REPOSITORY},
            "toRef": {"id": "refs/heads/main", "latestCommit": OLD, "repository": DATA_CENTER_REPOSITORY},
            "author": {"user": {"name": "bob"}, "role": "AUTHOR"},
        },
    }


def without(payload: dict[str, Any], *path: str) -> dict[str, Any]:
    """The payload with null at this path."""
    first, *rest = path
    return {**payload, first: without(payload[first], *rest) if rest else None}
