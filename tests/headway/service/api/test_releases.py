"""`POST /api/releases`, over real sockets; only the Prefect server behind it is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.domain.access import Action, Scope
from headway.domain.errors import ServiceUnavailable
from headway.domain.principal import Principal, Role
from headway.service.api.releases import TOKEN
from tests.standins.webhook_receiver import Receiver, receiver

pytestmark = pytest.mark.slow

REPO = "https://github.com/acme/shop"


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as made:
        made.register("shop", REPO, "github", "a secret")
        yield made


def token(receiving: Receiver, name: str = "ci", *actions: Action, owner: str = "root", **scope: Any) -> str:
    """The secret of a new token."""
    wanted = Scope(actions=actions or (Action.RELEASE,), **scope)
    user = Principal(kind="user", name=owner)
    return receiving.ledger.tokens.create(name, owner=user, scope=wanted, expires_at=None)[1]


def ask(receiving: Receiver, body: Any, secret: str | None = None, **headers: str) -> httpx.Response:
    """The answer to a token that may release every app, unless another is given."""
    known = [one.name for one in receiving.ledger.tokens.all()]
    headers["authorization"] = f"Bearer {secret or token(receiving, f'ci-{len(known)}')}"
    return receiving.client.post("/api/releases", json=body, headers=headers)


def test_api_starts_the_same_release_as_the_command_line(receiving: Receiver) -> None:
    answer = ask(receiving, {"app": "shop", "ref": "v1", "to": "staging"}, token(receiving))
    assert answer.status_code == 201
    (run,) = receiving.control.runs.values()
    assert run == {"repo": REPO, "ref": "v1", "to": "staging", "yes": False, "by": "token:ci"}
    assert answer.json() == {"flow_run_id": "run-1", "url": "http://prefect/runs/flow-run/run-1"}
    assert receiving.ledger.tokens.get("ci").last_used_at is not None


def test_same_idempotency_key_returns_the_same_run(receiving: Receiver) -> None:
    runs = [ask(receiving, {"app": "shop"}, **{"idempotency-key": key}).json()["flow_run_id"] for key in "aab"]
    assert runs == ["run-1", "run-1", "run-2"]


@pytest.mark.parametrize("value", [None, "Bearer", "Bearer headway_", "Basic a", "Bearer \xe9"])
def test_without_a_token_nothing_starts(receiving: Receiver, value: str | None) -> None:
    token(receiving)
    headers = [] if value is None else [(b"authorization", value.encode("latin-1"))]
    answer = receiving.client.post("/api/releases", json={"app": "shop"}, headers=headers)
    assert answer.status_code == 401
    assert receiving.control.runs == {}


def test_a_token_that_has_ended_starts_nothing(receiving: Receiver) -> None:
    secret = token(receiving)
    assert ask(receiving, {"app": "shop"}, secret).status_code == 201
    receiving.ledger.tokens.revoke("ci", by="ann")
    assert ask(receiving, {"app": "shop"}, secret).status_code == 401


@pytest.mark.parametrize(
    ("scope", "body", "error"),
    [
        ({"apps": ("blog",)}, {}, "token:ci may not release shop: its scope is to release of blog"),
        (
            {"environments": ("staging",)},
            {},
            "token:ci may not release shop: its scope is to release of every app in staging",
        ),
        (
            {"environments": ("staging",)},
            {"to": "production"},
            "token:ci may not release shop in production: its scope is to release of every app in staging",
        ),
        ({}, {"yes": True}, "token:ci may not approve shop: its scope is to release of every app"),
    ],
)
def test_what_is_outside_the_scope_is_refused(
    receiving: Receiver, scope: dict[str, Any], body: dict[str, Any], error: str
) -> None:
    answer = ask(receiving, {"app": "shop"} | body, token(receiving, **scope))
    assert (answer.status_code, answer.json()["error"]) == (403, error)
    assert receiving.control.runs == {}


def test_a_token_may_not_do_more_than_its_owner(receiving: Receiver) -> None:
    receiving.ledger.grants.grant("ann", Role.DEVELOPER, "shop", by="root")
    secret = token(receiving, "ci", Action.RELEASE, Action.APPROVE, owner="ann")
    assert ask(receiving, {"app": "shop"}, secret).status_code == 201
    answer = ask(receiving, {"app": "shop", "yes": True}, secret)
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "ann, who owns token:ci, may not approve shop: that needs the role approver, not developer",
        "hint": "these may: root",
    }
    receiving.ledger.grants.revoke("ann", "shop", by="root")
    assert ask(receiving, {"app": "shop"}, secret).status_code == 403


def test_the_body_cannot_name_who_requests_the_release(receiving: Receiver) -> None:
    answer = ask(receiving, {"app": "shop", "by": "owner@acme"})
    assert (answer.status_code, answer.json()["error"]) == (400, "by: a name in the body is not accepted")
    assert receiving.control.runs == {}


def test_the_former_secret_still_works_and_is_logged(receiving: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiving.secrets[TOKEN] = "a token"
    assert ask(receiving, {"app": "shop", "by": "token:ci"}, "a token").status_code == 201
    (run,) = receiving.control.runs.values()
    assert run["by"] == "API token: token:ci"
    assert f"a release was requested with the secret {TOKEN}" in caplog.text
    assert ask(receiving, {"app": "shop"}, "a toke").status_code == 401
    receiving.secrets[TOKEN] = ""
    assert receiving.client.post("/api/releases", json={}, headers={"authorization": "Bearer"}).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"app": "Shop"},
        {"app": "shop", "repo": "https://evil.example/x"},
        {"app": "shop", "ref": ""},
        {"app": "shop", "ref": "a\nb"},
    ],
)
def test_invalid_request_is_refused(receiving: Receiver, body: Any) -> None:
    assert ask(receiving, body).status_code == 400
    assert receiving.control.runs == {}


def test_unregistered_app_is_refused(receiving: Receiver) -> None:
    answer = ask(receiving, {"app": "other"})
    assert (answer.status_code, answer.json()["error"]) == (404, "no app other is registered")


def test_a_large_body_is_refused(receiving: Receiver) -> None:
    assert ask(receiving, {"app": "shop", "by": "x" * 20_000}).status_code == 413


def test_unreachable_prefect_server_is_an_error_response(receiving: Receiver) -> None:
    receiving.control.fault = ServiceUnavailable("the Prefect server does not answer", "start one")
    answer = ask(receiving, {"app": "shop"})
    assert (answer.status_code, answer.json()["hint"]) == (503, "start one")


def test_repeated_wrong_tokens_are_rate_limited(receiving: Receiver) -> None:
    assert [ask(receiving, {}, secret="guess").status_code for _ in range(61)] == [401] * 60 + [429]
