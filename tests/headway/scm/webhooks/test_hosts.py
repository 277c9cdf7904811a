"""Webhook deliveries of every git host, written after its documentation: signatures and payloads."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from headway.scm.webhooks import HOSTS, Event, Ignored, MergeGroupEvent, PullRequestEvent, PushEvent, place
from tests.standins import webhook_payloads as p
from tests.standins.webhook_payloads import NEW, OLD, SECRET, ZEROS, Sent

GITHUB = ("github.com/acme/shop",)
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED: dict[str, Sent] = {
    "github": p.github("push", p.github_push()),
    "gitea": p.gitea("push", p.gitea_push()),
    "gitlab": p.gitlab("Push Hook", p.gitlab_push()),
    "bitbucket": p.bitbucket("repo:push", p.bitbucket_push()),
    "generic": p.generic({"repository": "/srv/git/shop.git", "ref": "refs/heads/main", "after": NEW}),
}


def push(
    places: tuple[str, ...] = GITHUB, ref: str = "refs/heads/main", before: str | None = OLD, by: str = "ann"
) -> PushEvent:
    return PushEvent(places=places, ref=ref, before=before, after=NEW, by=by)


def pull(places: tuple[str, ...] = GITHUB, **changes: Any) -> PullRequestEvent:
    asked = {"number": 42, "open": True, "head": NEW, "ref": "refs/pull/42/head", "base": "main", "fork": False}
    return PullRequestEvent(**{"places": places, "by": "bob"} | asked | changes)


def group(places: tuple[str, ...], ref: str) -> MergeGroupEvent:
    return MergeGroupEvent(places=places, ref=ref, head=NEW, base="main", by="ann")


GITLAB = ("gitlab.com/acme/tools/shop",)
GITEA = ("git.example.com/acme/shop",)
BITBUCKET = ("bitbucket.org/acme/shop",)
DATA_CENTER = ("git.example.com/scm/acme/shop", "git.example.com/acme/shop")
MERGE_REF = "refs/merge-requests/42/head"
SAID: list[tuple[str, str, Sent, list[Event]]] = [
    ("github", "push", p.github("push", p.github_push()), [push()]),
    ("github", "new branch", p.github("push", p.github_push(before=ZEROS)), [push(before=None)]),
    ("github", "tag", p.github("push", p.github_push("refs/tags/v1", ZEROS)), [push(ref="refs/tags/v1", before=None)]),
    ("github", "force push", p.github("push", p.github_push(forced=True)), [push()]),
    ("github", "empty push", p.github("push", p.github_push(before=NEW)), [push(before=NEW)]),
    (
        "github",
        "deletion",
        p.github("push", p.github_push(after=ZEROS)),
        [Ignored(reason="refs/heads/main was deleted")],
    ),
    (
        "github",
        "new branch of a repository with SHA-256",
        p.github("push", p.github_push(before="0" * 64, after="2" * 64)),
        [push(before=None).model_copy(update={"after": "2" * 64})],
    ),
    (
        "github",
        "deletion in a repository with SHA-256",
        p.github("push", p.github_push(before="1" * 64, after="0" * 64)),
        [Ignored(reason="refs/heads/main was deleted")],
    ),
    ("github", "ping", p.github("ping", {"zen": "Keep it"}), [Ignored(reason="ping: starts nothing")]),
    ("github", "unknown", p.github("star", {}), [Ignored(reason="star: starts nothing")]),
    (
        "github",
        "merge queue",
        p.github("merge_group", p.github_merge_group()),
        [group(GITHUB, f"refs/heads/gh-readonly-queue/main/pr-42-{OLD}")],
    ),
    (
        "github",
        "merge queue given up",
        p.github("merge_group", p.github_merge_group("destroyed")),
        [Ignored(reason=f"merge group refs/heads/gh-readonly-queue/main/pr-42-{OLD} was destroyed")],
    ),
    (
        "github",
        "another base branch",
        p.github("pull_request", p.github_retargeted({"base": {"ref": {"from": "old"}, "sha": {"from": OLD}}})),
        [pull()],
    ),
    (
        "github",
        "another title",
        p.github("pull_request", p.github_retargeted({"title": {"from": "old"}})),
        [Ignored(reason="pull request 42 was edited: its commits are the same")],
    ),
    (
        "github",
        "pull request of a deleted account",
        p.github("pull_request", p.without(p.github_pull("opened"), "pull_request", "user")),
        [pull(by="")],
    ),
    ("github", "push of a deleted account", p.github("push", p.github_push(sender=None)), [push(by="")]),
    (
        "gitlab",
        "merge request of a deleted account",
        p.gitlab("Merge Request Hook", {**p.gitlab_merge("open"), "user": None}),
        [pull(GITLAB, ref=MERGE_REF, by="")],
    ),
    (
        "bitbucket",
        "draft",
        p.bitbucket("pullrequest:created", p.bitbucket_pull("DRAFT")),
        [pull(BITBUCKET, head=NEW[:12], ref="refs/heads/feature")],
    ),
    (
        "bitbucket",
        "push to Data Center",
        p.bitbucket("repo:refs_changed", p.data_center_push()),
        [push(DATA_CENTER), push(DATA_CENTER, "refs/tags/v1", None), Ignored(reason="refs/heads/gone was deleted")],
    ),
    (
        "bitbucket",
        "pull request at Data Center",
        p.bitbucket("pr:opened", p.data_center_pull()),
        [pull(DATA_CENTER, ref="refs/pull-requests/42/from")],
    ),
    (
        "bitbucket",
        "merged at Data Center",
        p.bitbucket("pr:merged", p.data_center_pull("MERGED")),
        [pull(DATA_CENTER, ref="refs/pull-requests/42/from", open=False)],
    ),
    (
        "bitbucket",
        "test of the connection at Data Center",
        p.bitbucket("diagnostics:ping", {"test": True}),
        [Ignored(reason="a test of the connection")],
    ),
    (
        "gitea",
        "another base branch",
        p.gitea("pull_request", {**p.gitea_pull("edited"), "changes": {"ref": {"from": "old"}}}),
        [pull(GITEA)],
    ),
    (
        "gitlab",
        "another target branch",
        p.gitlab(
            "Merge Request Hook",
            {**p.gitlab_merge("update"), "changes": {"target_branch": {"previous": "old", "current": "main"}}},
        ),
        [pull(GITLAB, ref=MERGE_REF)],
    ),
    (
        "gitlab",
        "merge train",
        p.gitlab("Pipeline Hook", p.gitlab_pipeline()),
        [group(GITLAB, "refs/merge-requests/42/train")],
    ),
    (
        "gitlab",
        "merge train that has ended",
        p.gitlab("Pipeline Hook", p.gitlab_pipeline(status="success")),
        [Ignored(reason="the pipeline of refs/merge-requests/42/train is success")],
    ),
    (
        "gitlab",
        "pipeline of a branch",
        p.gitlab("Pipeline Hook", {**p.gitlab_pipeline("main"), "merge_request": None}),
        [Ignored(reason="the pipeline of main is not that of a merge train")],
    ),
    ("github", "opened", p.github("pull_request", p.github_pull("opened")), [pull()]),
    ("github", "synchronize", p.github("pull_request", p.github_pull("synchronize")), [pull()]),
    ("github", "reopened", p.github("pull_request", p.github_pull("reopened")), [pull()]),
    ("github", "fork", p.github("pull_request", p.github_pull("opened", fork="mallory")), [pull(fork=True)]),
    ("github", "closed", p.github("pull_request", p.github_pull("closed", state="closed")), [pull(open=False)]),
    (
        "github",
        "labeled",
        p.github("pull_request", p.github_pull("labeled")),
        [Ignored(reason="pull request 42 was labeled: its commits are the same")],
    ),
    ("gitea", "push", p.gitea("push", p.gitea_push()), [push(GITEA)]),
    ("gitea", "forgejo", p.gitea("push", p.gitea_push(), brand="forgejo"), [push(GITEA)]),
    ("gitea", "synchronized", p.gitea("pull_request", p.gitea_pull("synchronized")), [pull(GITEA)]),
    ("gitea", "closed", p.gitea("pull_request", p.gitea_pull("closed", "closed")), [pull(GITEA, open=False)]),
    (
        "gitea",
        "deletion",
        p.gitea("push", p.gitea_push(after=ZEROS)),
        [Ignored(reason="refs/heads/main was deleted")],
    ),
    ("gitlab", "push", p.gitlab("Push Hook", p.gitlab_push()), [push(GITLAB)]),
    (
        "gitlab",
        "tag",
        p.gitlab("Tag Push Hook", p.gitlab_push("refs/tags/v1", ZEROS)),
        [push(GITLAB, "refs/tags/v1", None)],
    ),
    (
        "gitlab",
        "deletion",
        p.gitlab("Push Hook", p.gitlab_push(after=ZEROS)),
        [Ignored(reason="refs/heads/main was deleted")],
    ),
    ("gitlab", "open", p.gitlab("Merge Request Hook", p.gitlab_merge("open")), [pull(GITLAB, ref=MERGE_REF)]),
    (
        "gitlab",
        "being merged",
        p.gitlab("Merge Request Hook", p.gitlab_merge("reopen", state="locked")),
        [pull(GITLAB, ref=MERGE_REF)],
    ),
    (
        "gitlab",
        "update",
        p.gitlab("Merge Request Hook", p.gitlab_merge("update", oldrev=OLD)),
        [pull(GITLAB, ref=MERGE_REF)],
    ),
    (
        "gitlab",
        "update of a title",
        p.gitlab("Merge Request Hook", p.gitlab_merge("update")),
        [Ignored(reason="merge request 42 was update: its commits are the same")],
    ),
    (
        "gitlab",
        "merge",
        p.gitlab("Merge Request Hook", p.gitlab_merge("merge", state="merged")),
        [pull(GITLAB, ref=MERGE_REF, open=False)],
    ),
    (
        "gitlab",
        "fork",
        p.gitlab("Merge Request Hook", p.gitlab_merge("open", source=99)),
        [pull(GITLAB, ref=MERGE_REF, fork=True)],
    ),
    (
        "bitbucket",
        "push of several refs",
        p.bitbucket("repo:push", p.bitbucket_push()),
        [
            push(BITBUCKET),
            push(BITBUCKET, "refs/tags/v1", None),
            Ignored(reason="refs/heads/gone was deleted"),
        ],
    ),
    (
        "bitbucket",
        "created",
        p.bitbucket("pullrequest:created", p.bitbucket_pull()),
        [pull(BITBUCKET, head=NEW[:12], ref="refs/heads/feature")],
    ),
    (
        "bitbucket",
        "fulfilled",
        p.bitbucket("pullrequest:fulfilled", p.bitbucket_pull("MERGED")),
        [pull(BITBUCKET, head=NEW[:12], ref="refs/heads/feature", open=False)],
    ),
    (
        "bitbucket",
        "fork",
        p.bitbucket("pullrequest:created", p.bitbucket_pull(fork="mallory/shop")),
        [pull(BITBUCKET, head=NEW[:12], ref="refs/heads/feature", fork=True)],
    ),
    (
        "generic",
        "push",
        p.generic({"repository": "/srv/git/shop.git", "ref": "refs/heads/main", "after": NEW, "by": "ann"}),
        [push(("/srv/git/shop",), before=None)],
    ),
    ("generic", "ping", p.generic({}, event="ping"), [Ignored(reason="ping: starts nothing")]),
]


@pytest.mark.parametrize(("host", "sent", "said"), [pytest.param(h, s, e, id=f"{h} {w}") for h, w, s, e in SAID])
def test_delivery_is_parsed(host: str, sent: Sent, said: list[Event]) -> None:
    assert HOSTS[host].signed(sent.headers, sent.body, SECRET)
    assert list(HOSTS[host].events(sent.headers, sent.body)) == said


@pytest.mark.parametrize("host", SIGNED)
def test_delivery_has_an_id(host: str) -> None:
    assert HOSTS[host].delivery(SIGNED[host].headers)


def test_gitlab_retry_keeps_the_delivery_id() -> None:
    sent = p.gitlab("Push Hook", p.gitlab_push())
    again = sent.headers | {"x-gitlab-event-uuid": "yet another"}
    assert HOSTS["gitlab"].delivery(sent.headers) == HOSTS["gitlab"].delivery(again)


# --- who signed it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", SIGNED)
def test_wrong_secret_fails_verification(host: str) -> None:
    assert not HOSTS[host].signed(SIGNED[host].headers, SIGNED[host].body, SECRET + "!")


@pytest.mark.parametrize("host", SIGNED)
def test_missing_signature_fails_verification(host: str) -> None:
    assert not HOSTS[host].signed({}, SIGNED[host].body, SECRET)


@pytest.mark.parametrize("host", [host for host in SIGNED if host != "gitlab"])
@given(body=st.binary())
def test_signature_covers_the_exact_bytes(host: str, body: bytes) -> None:
    assert HOSTS[host].signed(SIGNED[host].headers, body, SECRET) == (body == SIGNED[host].body)


@pytest.mark.parametrize("host", SIGNED)
@given(word=st.text(max_size=80))
def test_random_signature_fails_verification(host: str, word: str) -> None:
    """For arbitrary header values and bytes."""
    headers = {name: word for name in SIGNED[host].headers if "event" not in name}
    assert not HOSTS[host].signed(headers, SIGNED[host].body, SECRET)


def test_a_signing_token_of_gitlab() -> None:
    sent = p.gitlab_signed("Push Hook", p.gitlab_push(), WHSEC)
    assert HOSTS["gitlab"].signed(sent.headers, sent.body, WHSEC)
    assert not HOSTS["gitlab"].signed(sent.headers, sent.body + b" ", WHSEC)
    assert not HOSTS["gitlab"].signed(sent.headers | {"webhook-id": "msg_2"}, sent.body, WHSEC)
    assert HOSTS["gitlab"].delivery(sent.headers) == "msg_1"


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_old_signed_delivery_is_refused_as_a_replay(seconds: int) -> None:
    sent = p.gitlab_signed("Push Hook", p.gitlab_push(), WHSEC, at=time.time() + seconds)
    assert not HOSTS["gitlab"].signed(sent.headers, sent.body, WHSEC)


def test_plain_token_does_not_replace_an_invalid_signature() -> None:
    sent = p.gitlab_signed("Push Hook", p.gitlab_push(), WHSEC, at=0)
    assert not HOSTS["gitlab"].signed(sent.headers | {"x-gitlab-token": WHSEC}, sent.body, WHSEC)


# --- what is not what the host sends ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", SIGNED)
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"payload=%7B%7D", b"\xff\xfe", b"[" * 100_000, b'{"ref": 1' + b"0" * 5000]
)
def test_anything_else_is_refused(host: str, body: bytes) -> None:
    with pytest.raises(ValidationError):
        HOSTS[host].events(SIGNED[host].headers, body)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ref", "refs/heads/../../etc/passwd\n"),
        ("ref", "refs/heads/a b"),
        ("ref", "refs/heads/-upload-pack=x"),
        ("ref", "main"),
        ("ref", "refs/heads/\x00"),
        ("ref", "refs/heads/" + "x" * 500),
        ("after", "--upload-pack"),
        ("after", "2" * 39),
        ("repository", "a\nb"),
        ("by", "\ud800"),
        ("by", "x\x00"),
    ],
)
def test_unsafe_git_arguments_are_refused(key: str, value: str) -> None:
    sent = {"repository": "/srv/git/shop.git", "ref": "refs/heads/main", "after": NEW, "by": "ann"} | {key: value}
    with pytest.raises(ValidationError):
        HOSTS["generic"].events({}, json.dumps(sent).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("host", "sent"), [pytest.param(h, s, id=f"{h} {w}") for h, w, s, _ in SAID])
@given(data=st.data())
def test_arbitrary_payload_is_parsed_or_refused(host: str, sent: Sent, data: st.DataObject) -> None:
    """One part of a valid payload is replaced."""
    payload = json.loads(sent.body)
    part = payload
    while isinstance(part, dict) and part:
        key = data.draw(st.sampled_from(sorted(part)))
        if not isinstance(part[key], dict) or data.draw(st.booleans()):
            part[key] = data.draw(JSON)
            break
        part = part[key]
    try:
        events = HOSTS[host].events(sent.headers, json.dumps(payload).encode())
    except ValidationError:
        return
    assert all(isinstance(event, PushEvent | PullRequestEvent | MergeGroupEvent | Ignored) for event in events)


# --- which repository is meant ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/Acme/shop.git",
        "https://github.com/acme/shop",
        "https://ann:token@github.com/acme/shop.git/",
        "git@github.com:acme/shop.git",
        "github.com:acme/shop.git",
        "ssh://git@github.com/acme/shop.git",
        "ssh://git@github.com:22/acme/shop.git",
    ],
)
def test_urls_of_one_repository_are_equal(address: str) -> None:
    assert place(address) == "github.com/acme/shop"


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("/srv/git/Shop.git", "/srv/git/Shop"),
        ("file:///srv/git/Shop.git", "/srv/git/Shop"),
        ("https://github.com/acme/shop-2", "github.com/acme/shop-2"),
        ("https://github.com.evil.example/acme/shop", "github.com.evil.example/acme/shop"),
        ("https://evil.example/github.com/acme/shop", "evil.example/github.com/acme/shop"),
    ],
)
def test_urls_of_different_repositories_differ(address: str, where: str) -> None:
    assert place(address) == where


@given(address=st.text(max_size=60))
def test_any_text_normalizes_to_a_url(address: str) -> None:
    assert isinstance(place(address), str)
