"""Arbitrary requests: never a response of 500 or more, never a forged delivery that is accepted.

`pytest -s --hypothesis-profile fuzz tests/headway/service/api/test_fuzzing.py` sends 100,000 requests and says what was
answered.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headway.scm.webhooks import HOSTS
from headway.service.api import http_server
from headway.service.api.releases import TOKEN
from tests.standins import webhook_payloads as p
from tests.standins.webhook_payloads import SECRET
from tests.standins.webhook_receiver import Receiver, receiver

pytestmark = pytest.mark.slow

KEY = base64.b64encode(SECRET.encode()).decode()
SECRETS = dict.fromkeys(HOSTS, SECRET) | {"gitlab": f"whsec_{KEY}"}
REPOS = {
    "github": "https://github.com/acme/shop",
    "gitlab": "https://gitlab.com/acme/tools/shop",
    "gitea": "https://git.example.com/acme/shop",
    "bitbucket": "https://bitbucket.org/acme/shop",
    "generic": "/srv/git/shop.git",
}
PAYLOADS: dict[str, dict[str, Any]] = {
    "github": {"push": p.github_push(), "pull_request": p.github_pull("opened"), "ping": {}},
    "gitea": {"push": p.gitea_push(), "pull_request": p.gitea_pull("opened")},
    "gitlab": {"Push Hook": p.gitlab_push(), "Merge Request Hook": p.gitlab_merge("open")},
    "bitbucket": {"repo:push": p.bitbucket_push(), "pullrequest:created": p.bitbucket_pull()},
    "generic": {"push": {"repository": REPOS["generic"], "ref": "refs/heads/main", "after": p.NEW}},
}
EVENT = {"github": "x-github-event", "gitea": "x-gitea-event", "gitlab": "x-gitlab-event", "bitbucket": "x-event-key"}
SIGNATURE = {
    "github": "x-hub-signature-256",
    "gitea": "x-gitea-signature",
    "gitlab": "webhook-signature",
    "bitbucket": "x-hub-signature",
    "generic": "x-headway-signature",
}
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
READ = 60.0  # seconds for an answer


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiver]:
    """A receiver with an app for each host, and without rate limits for failed signatures."""
    answers: Counter[str] = Counter()
    with receiver(tmp_path) as made:
        for host, repo in REPOS.items():
            made.register(host, repo, host, SECRETS[host])
        made.secrets[TOKEN] = "a token"
        made.client.event_hooks["response"] = [lambda one: answers.update([str(one.status_code)])]
        yield made
    print(f"\n{sum(answers.values())} requests: {dict(sorted(answers.items()))}")


def signed(host: str, event: str, body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The headers that a host sends with a body."""
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {EVENT.get(host, "x-headway-event"): event, SIGNATURE[host]: f"sha256={mac}"}
    if host == "gitea":
        headers[SIGNATURE[host]] = mac
    if host == "gitlab":
        now = str(int(time.time()))
        said = hmac.new(secret.encode(), f"msg.{now}.".encode() + body, hashlib.sha256).digest()
        headers |= {"webhook-id": "msg", "webhook-timestamp": now}
        headers[SIGNATURE[host]] = f"v1,{base64.b64encode(said).decode()}"
    return headers


def post(receiving: Receiver, host: str, headers: dict[str, str], body: bytes) -> int:
    """Status of the response, sent from a new client address."""
    receiving.forgive()
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return receiving.client.post(f"/hooks/{host}", headers=raw, content=body).status_code


def kept(receiving: Receiver) -> int:
    return sum(len(receiving.ledger.deliveries.recent(host, 1_000_000)) for host in HOSTS)


# --- what is sent ----------------------------------------------------------------------------------------------

HEADER = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.sampled_from([(host, event) for host, known in PAYLOADS.items() for event in known])


@st.composite
def bodies(draw: st.DrawFn, payload: Any) -> bytes:
    """A payload with a few changes, in an encoding that may be invalid; or arbitrary bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    changed = json.loads(json.dumps(payload))
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(changed))
        if places:
            parent, key = draw(st.sampled_from(places))
            parent[key] = draw(JSON)
    text = json.dumps(changed, ensure_ascii=draw(st.booleans()))
    body = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])))
    return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 9)) == 0 else body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Wherever something can be replaced: its parent, and the key there."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


# --- and what becomes of it ------------------------------------------------------------------------------------


def test_every_signed_request_gets_a_response(receiving: Receiver) -> None:
    @FUZZ
    @given(st.data(), EVENTS, st.dictionaries(st.sampled_from(["x-github-delivery", "content-type"]), HEADER))
    def each(data: st.DataObject, sort: tuple[str, str], others: dict[str, str]) -> None:
        host, event = sort
        body = data.draw(bodies(PAYLOADS[host][event]))
        assert post(receiving, host, others | signed(host, event, body), body) in (200, 202, 400)

    each()
    assert kept(receiving)


def test_every_unsigned_request_is_refused(receiving: Receiver) -> None:
    @FUZZ
    @given(st.data(), EVENTS, HEADER, st.dictionaries(st.sampled_from(sorted(SIGNATURE.values())), HEADER))
    def each(data: st.DataObject, sort: tuple[str, str], secret: str, others: dict[str, str]) -> None:
        host, event = sort
        body = data.draw(bodies(PAYLOADS[host][event]))
        headers = data.draw(st.sampled_from([{}, signed(host, event, body, secret)]))
        assert post(receiving, host, headers | others, body) == 401

    each()
    assert not kept(receiving)


def test_modified_body_is_refused(receiving: Receiver) -> None:
    @FUZZ
    @given(st.data(), EVENTS)
    def each(data: st.DataObject, sort: tuple[str, str]) -> None:
        host, event = sort
        body = json.dumps(PAYLOADS[host][event]).encode()
        headers = signed(host, event, body)
        name = SIGNATURE[host]
        if data.draw(st.booleans()):
            body = data.draw(_changed(body))
        else:
            headers[name] = data.draw(_changed(headers[name].encode())).decode("latin-1").strip()
        if (headers[name], body) != (signed(host, event, body)[name], body):  # blanks around it are no change
            assert post(receiving, host, headers, body) == 401

    each()
    assert not kept(receiving)


@st.composite
def _changed(draw: st.DrawFn, said: bytes) -> bytes:
    """One byte is another, is not there, or is there twice."""
    at = draw(st.integers(0, len(said) - 1))
    other = draw(st.integers(0x21, 0x7E).filter(lambda byte: byte != said[at]))
    return said[:at] + draw(st.sampled_from([bytes([other]), b"", said[at : at + 1] * 2])) + said[at + 1 :]


LENGTHS = ["{}", "{}", "0", "-1", "+{}", "{}0", "1", "{}, {}", "1e3", "9" * 40, "\xb2", ""]
LINES = st.one_of(
    st.sampled_from(LENGTHS).map(lambda length: f"Content-Length: {length}"),
    st.sampled_from(["chunked", "gzip, chunked", "identity", "chunked, chunked", "\x0bchunked"]).map(
        lambda coding: f"Transfer-Encoding: {coding}"
    ),
    st.sampled_from(["Expect: 100-continue", "Content-Encoding: gzip", "Upgrade: websocket", "Connection: upgrade"]),
    st.integers(1, 70_000).map(lambda size: f"X-Filler: <{size}>"),  # written out when it is sent
    st.sampled_from(sorted(SIGNATURE.values())).map(lambda name: f"{name}: sha256={'0' * 64}"),
    st.text(st.characters(max_codepoint=0xFF), max_size=30),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that resemble an unsigned delivery."""
    host, event = draw(EVENTS)
    body = json.dumps(PAYLOADS[host][event]).encode()
    body = draw(
        st.sampled_from(
            [body, gzip.compress(body, mtime=0), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), b"zz\r\n", body[:9], b""]
        )
    )
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD", "OPTIONS", "P\x00ST"]))
    path = draw(
        st.sampled_from([f"/hooks/{host}", f"/hooks/{host}", "/hooks/%ff", "/api/releases", "*", "/hooks/../health"])
    )
    version = draw(st.sampled_from(["1.1", "1.1", "1.0", "2.0", "9"]))
    length = draw(st.sampled_from([[], ["Content-Length: {}"]]))
    lines = draw(st.lists(LINES, max_size=3))
    head = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *length, *lines]).replace("{}", str(len(body)))
    sent = head.encode("latin-1") + b"\r\n\r\n" + body
    return sent[: draw(st.integers(0, len(sent)))] if draw(st.integers(0, 9)) == 0 else sent


def test_invalid_http_is_answered_or_closed(receiving: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    answers: Counter[str] = Counter()

    @FUZZ
    @given(requests())
    def each(sent: bytes) -> None:
        receiving.forgive()
        codes = [int(code) for code in re.findall(rb"^HTTP/1\.1 (\d{3})", _exchange(receiving, sent), re.MULTILINE)]
        answers.update(map(str, codes) if codes else ["none"])
        assert all(code < 500 and code not in (201, 202) for code in codes), codes
        assert not [said.getMessage() for said in caplog.records if said.levelno >= logging.ERROR]
        caplog.clear()

    each()
    assert not kept(receiving)
    assert not receiving.control.runs
    assert post(receiving, "generic", signed("generic", "other", b""), b"") == 200
    print(f"\n{sum(answers.values())} requests by hand: {dict(sorted(answers.items()))}")


def _exchange(receiving: Receiver, sent: bytes) -> bytes:
    """Read the response until the server closes the connection."""
    answer = b""
    with socket.create_connection(_address(receiving), timeout=READ) as connection, suppress(ConnectionError):
        connection.sendall(re.sub(rb"<(\d+)>", lambda size: b"x" * int(size[1]), sent))
        with suppress(OSError):  # it was hung up on already
            connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            answer += more
    return answer


def _address(receiving: Receiver) -> tuple[str, int]:
    return "127.0.0.1", httpx.URL(receiving.url).port or 0


@pytest.mark.parametrize("path", ["/hooks/{host}", "/api/releases"])
def test_responses_match_the_openapi_schema(receiving: Receiver, path: str) -> None:
    """schemathesis sends what the OpenAPI document allows, and what it does not."""
    schema = schemathesis.openapi.from_url(f"{receiving.url}/openapi.json")
    answers: Counter[str] = Counter()

    @FUZZ
    @given(schema[path]["POST"].as_strategy(), st.sampled_from([{}, {"authorization": "Bearer a token"}]))
    def each(case: Any, headers: dict[str, str]) -> None:
        receiving.forgive()
        answer = case.call(headers=headers)
        answers[str(answer.status_code)] += 1
        assert answer.status_code < 500
        assert headers or answer.status_code != 201
        case.validate_response(answer)

    each()
    assert not kept(receiving)
    print(f"\n{sum(answers.values())} requests by schema: {dict(sorted(answers.items()))}")


# --- slow clients ----------------------------------------------------------------------------------------------


def test_idle_connections_do_not_block_other_clients(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_DEADLINE", 3.0)
    waiting = [socket.create_connection(_address(receiving), timeout=READ) for _ in range(200)]
    for number, each in enumerate(waiting):
        each.sendall(b"POST /hooks/generic HTTP/1.1\r\nHost: x\r\nX-Filler: "[: number % 50])

    body = json.dumps(PAYLOADS["generic"]["push"]).encode()
    assert post(receiving, "generic", signed("generic", "push", body), body) == 202

    for each in waiting:
        assert each.recv(1) == b""  # they are hung up on
        each.close()


def test_signature_covers_the_compressed_body(receiving: Receiver) -> None:
    body = gzip.compress(json.dumps(PAYLOADS["generic"]["push"]).encode())
    headers = signed("generic", "push", body) | {"content-encoding": "gzip"}
    assert post(receiving, "generic", headers, body) == 400
    assert post(receiving, "generic", signed("generic", "push", b"{}") | {"content-encoding": "gzip"}, body) == 401


def test_repeated_header_counts_once(receiving: Receiver) -> None:
    """A wrong signature is refused, whichever of the two headers is used."""
    body = json.dumps(PAYLOADS["generic"]["push"]).encode()
    right, wrong = signed("generic", "push", body), signed("generic", "push", body, "guessed")
    for pair in ((right, wrong), (wrong, right), (wrong, wrong)):
        raw = [(name.encode(), value.encode()) for headers in pair for name, value in headers.items()]
        answer = receiving.client.post("/hooks/generic", headers=raw, content=body)
        assert answer.status_code in ((202,) if pair[0] is right else (401,))
