"""`POST /api/releases`, over real sockets; only the Prefect server behind it is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.domain.errors import ServiceUnavailable
from headway.service.api.releases import TOKEN
from tests.standins.webhook_receiver import Receiver, receiver

pytestmark = pytest.mark.slow

REPO = "https://github.com/acme/shop"


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as made:
        made.register("shop", REPO, "github", "a secret")
        made.secrets[TOKEN] = "a token"
        yield made


def ask(receiving: Receiver, body: Any, token: str | None = "a token", **headers: str) -> httpx.Response:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return receiving.client.post("/api/releases", json=body, headers=headers)


def test_api_starts_the_same_release_as_the_command_line(receiving: Receiver) -> None:
    answer = ask(receiving, {"app": "shop", "ref": "v1", "to": "staging", "by": "ann"})
    assert answer.status_code == 201
    (run,) = receiving.control.runs.values()
    assert run == {"repo": REPO, "ref": "v1", "to": "staging", "yes": False, "by": "ann"}
    assert answer.json() == {"flow_run_id": "run-1", "url": "http://prefect/runs/flow-run/run-1"}


def test_same_idempotency_key_returns_the_same_run(receiving: Receiver) -> None:
    runs = [ask(receiving, {"app": "shop"}, **{"idempotency-key": key}).json()["flow_run_id"] for key in "aab"]
    assert runs == ["run-1", "run-1", "run-2"]


@pytest.mark.parametrize("token", [None, "a toke", "a token!", "\xe9"])
def test_without_the_token_nothing_starts(receiving: Receiver, token: str | None) -> None:
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode("latin-1"))]
    answer = receiving.client.post("/api/releases", json={"app": "shop"}, headers=headers)
    assert answer.status_code == 401
    assert receiving.control.runs == {}


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_configured_token_the_api_is_disabled(receiving: Receiver, token: str | None) -> None:
    if token is None:
        del receiving.secrets[TOKEN]
    else:
        receiving.secrets[TOKEN] = token
    assert ask(receiving, {"app": "shop"}, token="guess").status_code == 403


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
    assert [ask(receiving, {}, token="guess").status_code for _ in range(61)] == [401] * 60 + [429]
