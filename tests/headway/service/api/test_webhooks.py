"""The webhook receiver on real sockets: stored and refused deliveries, and overload."""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from headway.ledger import DeliveryRecord, Ledger
from headway.service.api import responses, webhook_secrets, webhooks
from tests.standins import webhook_payloads as p
from tests.standins.webhook_payloads import SECRET
from tests.standins.webhook_receiver import Receiver, receiver

pytestmark = pytest.mark.slow

REPO = "https://github.com/acme/shop"


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as made:
        made.register("shop", REPO, "github", SECRET)
        yield made


def kept(receiving: Receiver) -> list[DeliveryRecord]:
    return receiving.ledger.deliveries.recent("shop", 100_000)


def test_delivery_is_stored_before_the_response(receiving: Receiver) -> None:
    answer = receiving.send("github", *p.github("push", p.github_push()))

    assert (answer.status_code, answer.json()) == (202, {"stored": 1, "ignored": []})
    (one,) = kept(receiving)
    assert (one.app, one.delivery, one.ref, one.state) == ("shop", "guid-1", "refs/heads/main", "waiting")
    assert receiving.services.deliveries_stored.is_set()


def test_repeated_delivery_is_stored_once(receiving: Receiver) -> None:
    for _ in range(3):
        assert receiving.send("github", *p.github("push", p.github_push())).status_code == 202
    assert len(kept(receiving)) == 1


def test_every_ref_of_a_push_is_stored(receiving: Receiver) -> None:
    receiving.register("other", "https://bitbucket.org/acme/shop", "bitbucket", SECRET)
    answer = receiving.send("bitbucket", *p.bitbucket("repo:push", p.bitbucket_push()))
    assert answer.json() == {"stored": 2, "ignored": ["refs/heads/gone was deleted"]}
    refs = {one.ref for one in receiving.ledger.deliveries.recent("other")}
    assert refs == {"refs/heads/main", "refs/tags/v1"}


def test_ignored_event_is_acknowledged_and_not_stored(receiving: Receiver) -> None:
    answer = receiving.send("github", *p.github("ping", {"zen": "Design for failure."}))
    assert (answer.status_code, answer.json()["ignored"]) == (200, ["ping: starts nothing"])
    assert kept(receiving) == []


def test_unregistered_repository_starts_nothing(receiving: Receiver) -> None:
    payload = p.github_push(repository=p.GITHUB_REPOSITORY | {"clone_url": "https://github.com/acme/other.git"})
    payload["repository"]["ssh_url"] = "git@github.com:acme/other.git"
    answer = receiving.send("github", *p.github("push", payload))
    assert answer.status_code == 200
    assert answer.json()["ignored"] == ["github.com/acme/other is not registered with this secret"]
    assert kept(receiving) == []


def test_secret_of_one_app_does_not_verify_another(receiving: Receiver) -> None:
    receiving.register("other", "https://github.com/acme/other", "github", "other secret")
    answer = receiving.send("github", *p.github("push", p.github_push(), secret="other secret"))
    assert answer.json() == {"stored": 0, "ignored": ["github.com/acme/shop is not registered with this secret"]}
    assert kept(receiving) == []


# --- refused ---------------------------------------------------------------------------------------------------


def test_forged_signature_is_refused(receiving: Receiver) -> None:
    answer = receiving.send("github", *p.github("push", p.github_push(), secret="guessed"))
    assert answer.status_code == 401
    assert answer.json()["error"] == "the signature is missing or wrong"
    assert kept(receiving) == []


def test_nothing_is_parsed_before_it_is_verified(receiving: Receiver) -> None:
    sent = p.github("push", p.github_push())
    assert receiving.send("github", sent.headers, b"{").status_code == 401


def test_without_a_secret_everything_is_refused(tmp_path: Path) -> None:
    with receiver(tmp_path) as receiving:
        receiving.register("shop", REPO, "github", None)
        answer = receiving.send("github", *p.github("push", p.github_push(), secret=""))
        assert answer.status_code == 403
        receiving.secrets["shop-webhook"] = ""  # an empty one is none
        time.sleep(webhook_secrets.REFRESH_LIMIT)
        assert receiving.send("github", *p.github("push", p.github_push(), secret="")).status_code == 403
        assert receiving.services.webhook_secrets.missing == ["app shop: the secret shop-webhook is empty"]


@pytest.mark.parametrize("secret", [SECRET, "other secret"])
def test_webhooks_work_as_soon_as_an_app_is_registered(receiving: Receiver, secret: str) -> None:
    receiving.send("github", *p.github("ping", {}))
    receiving.register("other", "https://github.com/acme/other", "github", secret)
    repository = p.GITHUB_REPOSITORY | {
        "clone_url": "https://github.com/acme/other.git",
        "ssh_url": "git@github.com:acme/other.git",
    }
    answer = receiving.send("github", *p.github("push", p.github_push(repository=repository), secret=secret))
    assert answer.status_code == 202
    assert len(receiving.ledger.deliveries.recent("other")) == 1


def test_new_secret_takes_effect_at_once(receiving: Receiver) -> None:
    receiving.send("github", *p.github("ping", {}))
    receiving.secrets["shop-webhook"] = "another"
    time.sleep(webhook_secrets.REFRESH_LIMIT)
    assert receiving.send("github", *p.github("ping", {}, secret="another")).status_code == 200
    assert receiving.send("github", *p.github("ping", {})).status_code == 401


@pytest.mark.parametrize("host", ["", "gitlab", "svn", "github%2F..", "github/x"])
def test_unknown_kinds_of_host_are_refused(receiving: Receiver, host: str) -> None:
    sent = p.github("push", p.github_push())
    assert receiving.send(host, *sent).status_code in (403, 404)
    assert kept(receiving) == []


def test_form_encoded_body_is_refused_with_a_reason(receiving: Receiver) -> None:
    """GitHub sends a form unless JSON is configured."""
    body = b"payload=%7B%7D"
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    answer = receiving.send("github", {"x-github-event": "push", "x-hub-signature-256": signature}, body)
    assert answer.status_code == 400
    assert answer.json()["hint"] == "set the content type of the webhook to JSON"


def test_missing_fields_are_named(receiving: Receiver) -> None:
    sent = p.github("push", {"ref": "refs/heads/main", "after": p.NEW, "repository": {"id": 1}})
    answer = receiving.send("github", *sent)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "not a payload of github: event push: missing: before, repository/clone_url, repository/ssh_url",
        "hint": "is the webhook that of another kind of host, such as gitlab or gitea or bitbucket or generic?",
    }


def test_wrong_field_is_named(receiving: Receiver) -> None:
    answer = receiving.send("github", *p.github("push", p.github_push(ref="main")))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("not a payload of github: ref: String should match pattern")
    assert answer.json()["hint"] == "send what github documents for this event"


@pytest.mark.parametrize("declared", [True, False])
def test_oversized_body_is_refused(receiving: Receiver, declared: bool) -> None:
    size = webhooks.BODY_LIMIT + 1
    chunks = iter([b"x" * size]) if declared else (b"x" * 1024 * 1024 for _ in range(26))
    headers = {"content-length": str(size)} if declared else {}
    try:
        answer = httpx.post(f"{receiving.url}/hooks/github", headers=headers, content=chunks, trust_env=False)
    except httpx.TransportError:
        return  # it was cut off while it was still sending
    assert answer.status_code == 413


def test_largest_allowed_body_is_accepted(receiving: Receiver) -> None:
    payload = p.github_push(filler="x" * (webhooks.BODY_LIMIT - 10_000))
    assert receiving.send("github", *p.github("push", payload)).status_code == 202


def test_slow_client_times_out(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "BODY_DEADLINE", 2.0)
    address = ("127.0.0.1", httpx.URL(receiving.url).port or 0)
    with socket.create_connection(address) as slow:
        slow.sendall(b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert receiving.send("github", *p.github("push", p.github_push())).status_code == 202
        assert b" 408 " in slow.recv(64)


def test_disconnected_client_leaves_no_delivery(receiving: Receiver) -> None:
    address = ("127.0.0.1", httpx.URL(receiving.url).port or 0)
    for _ in range(5):
        with socket.create_connection(address) as gone:
            gone.sendall(b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert receiving.send("github", *p.github("push", p.github_push())).status_code == 202


def test_repeated_wrong_signatures_are_rate_limited(receiving: Receiver) -> None:
    forged = p.github("push", p.github_push(), secret="guessed")
    answers = [receiving.send("github", *forged).status_code for _ in range(61)]
    assert answers == [401] * 60 + [429]


def test_wrong_signatures_do_not_stop_right_ones_from_the_same_address(receiving: Receiver) -> None:
    forged = p.github("push", p.github_push(), secret="guessed")
    assert {receiving.send("github", *forged).status_code for _ in range(61)} == {401, 429}
    assert receiving.send("github", *p.github("push", p.github_push())).status_code == 202


def test_unwritable_ledger_is_an_error_response(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    receiving.send("github", *p.github("ping", {}))
    blocker = Ledger.open(f"sqlite:///{receiving.ledger._engine.url.database}")
    with blocker._engine.connect() as held:
        held.exec_driver_sql("DROP TABLE inbox")
        held.commit()
    answer = receiving.send("github", *p.github("push", p.github_push()))
    blocker.close()
    assert answer.status_code == 503
    assert "cannot be written" in answer.json()["error"]


# --- many at once ----------------------------------------------------------------------------------------------


def test_burst_of_deliveries_is_stored_completely(receiving: Receiver) -> None:
    sent = [p.github("push", p.github_push(after=f"{n:040x}"), delivery=f"guid-{n}") for n in range(1, 301)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: receiving.send("github", *one).status_code, sent + sent))
    assert set(answers) == {202}
    assert len(kept(receiving)) == 300


def test_few_large_bodies_are_in_memory_at_once(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send them: the signature is known only at their end."""
    monkeypatch.setattr(responses, "BODY_DEADLINE", 60.0)
    address = ("127.0.0.1", httpx.URL(receiving.url).port or 0)
    head = f"POST /hooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: {8 * responses.LARGE}\r\n\r\n".encode()
    with ExitStack() as opened:

        def send() -> socket.socket:
            sender = opened.enter_context(socket.create_connection(address, timeout=30))
            sender.sendall(head + b" " * (responses.LARGE + 1))
            return sender

        for _ in range(responses.LARGE_AT_ONCE):
            send()
        end = time.monotonic() + 30
        while not receiving.services.large_bodies.full:
            assert time.monotonic() < end
            time.sleep(0.02)
        monkeypatch.setattr(responses, "BODY_DEADLINE", 1.0)
        assert send().makefile("rb").readline().split()[1] == b"503"
        assert receiving.send("github", *p.github("push", p.github_push())).status_code == 202
    while receiving.services.large_bodies.full:  # the senders have hung up
        assert time.monotonic() < end
        time.sleep(0.02)
    test_largest_allowed_body_is_accepted(receiving)
