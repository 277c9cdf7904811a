"""The door with a real Envoy: in front of the web service, and of an app that answers as Prefect's server does."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from headway.domain.access import Action, Scope
from headway.domain.errors import UsageError
from headway.domain.principal import Principal, Role
from headway.ledger.prefect_requests import creator_headers
from headway.service.door import process
from headway.service.prefect.credential import authorization, make_login
from headway.system.os_user import home_owner, os_user
from tests.standins.door import Door, running_door, until_it_listens
from tests.standins.hosted_apps import Trust
from tests.standins.ports import free_port

RUN = "0b6b5f4a-3e1c-4d2a-9f7e-2f1f0a9c5d11"
RESUME = f"/prefect/api/flow_runs/{RUN}/resume"
START = f"/prefect/api/deployments/{RUN}/create_flow_run"
BLOCKS = "/prefect/api/block_documents/filter"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running_door(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(door: Door) -> None:
    door.prefect.requests.clear()


# --- nobody ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/prefect/"),
        ("POST", BLOCKS),
        ("POST", START),
        ("GET", "/prefect/api/admin/settings"),
        ("GET", "/prefect/api//admin/settings"),
        ("GET", "/prefect/api/x/../admin/settings"),
        ("GET", "/health/../prefect/api/admin/settings"),
        ("POST", "/hooks/../prefect/api/block_documents/filter"),
    ],
)
def test_nobody_reaches_prefect(door: Door, method: str, path: str) -> None:
    headers = {"x-headway-door": "1", "authorization": "Basic aGVhZHdheTpndWVzcw==", "x-forwarded-for": "127.0.0.1"}
    for given in ({}, headers, {"cookie": "headway-session=guess"}, {"authorization": "Bearer headway_guess"}):
        host = door.url.removeprefix("http://")
        with socket.create_connection(("127.0.0.1", int(host.split(":")[1])), timeout=30) as raw:
            lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-length: 2", "connection: close"]
            lines += [f"{name}: {value}" for name, value in given.items()]
            raw.sendall("\r\n".join([*lines, "", "{}"]).encode())
            status = raw.makefile("rb").readline()
        assert status.split()[1] in (b"401", b"403"), status
    assert door.prefect.requests == []


def test_escaped_slashes_are_refused(door: Door) -> None:
    with door.signed_in() as browser:
        assert browser.get("/prefect/api%2fadmin/settings").status_code == 400


def test_a_person_is_sent_to_the_sign_in_page_and_back(door: Door) -> None:
    with door.client as browser:
        answer = browser.get("/prefect/runs?page=2", headers={"sec-fetch-mode": "navigate"})
        assert answer.status_code == 302
        page = browser.get(answer.headers["location"]).text
    assert "headway open" in page


def test_webhooks_need_no_sign_in(door: Door) -> None:
    door.web.register("shop", "https://github.com/acme/shop", "github", "secret")
    with door.client as host:
        answer = host.post("/hooks/github", json={})
    assert (answer.status_code, "signature" in answer.json()["error"]) == (401, True), answer.text


def test_prefect_refuses_clients_that_have_no_credential_of_its_own(door: Door) -> None:
    """The file of the credential is for this user only; the server checks it, see test_server.py."""
    file = door.home / "prefect-credential"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (door.home / "door" / "envoy.json").stat().st_mode & 0o777 == 0o600
    assert len(file.read_text()) > 40


# --- signing in ------------------------------------------------------------------------------------------------


def test_a_link_signs_in_once(door: Door) -> None:
    code = door.web.ledger.sessions.offer(os_user())
    with door.client as browser:
        shown = browser.get("/sign-in", params={"code": code, "next": "/prefect/"})
        assert code in shown.text  # looking at the link uses nothing up
        form = {"code": code, "next": "/prefect/"}
        answer = browser.post("/sign-in", data=form, headers={"origin": door.url})
        assert (answer.status_code, answer.headers["location"]) == (303, "/prefect/")
        cookie = answer.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.replace(" ", "").split(";"))
        assert browser.get("/").status_code == 200
        again = browser.post("/sign-in", data=form, headers={"origin": door.url})
        assert again.status_code == 403
        assert "was used before" in again.text


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1", "/a\r\nb"]
)
def test_a_link_leads_to_no_other_site(door: Door, wanted: str) -> None:
    code = door.web.ledger.sessions.offer(os_user())
    with door.client as browser:
        answer = browser.post("/sign-in", data={"code": code, "next": wanted}, headers={"origin": door.url})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {}, {"sec-fetch-site": "same-site"}]
)
def test_another_site_cannot_sign_its_visitor_in(door: Door, headers: dict[str, str]) -> None:
    code = door.web.ledger.sessions.offer(os_user())
    with door.client as browser:
        answer = browser.post("/sign-in", data={"code": code}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_out_ends_the_session(door: Door) -> None:
    with door.signed_in() as browser:
        start = browser.get("/").text
        assert "Signed in as" in start
        assert browser.post("/sign-out", data={"csrf_token": "guess"}).status_code == 403
        assert browser.get("/").status_code == 200
        token = re.search(r'csrf_token" value="(\w+)"', start)
        assert token is not None
        kept = dict(browser.cookies)
        assert browser.post("/sign-out", data={"csrf_token": token[1]}).status_code == 303
        browser.cookies.update(kept)
        assert browser.get("/").status_code == 303
        assert browser.get("/prefect/").status_code == 401


def test_pages_run_no_script_and_are_in_no_frame(door: Door) -> None:
    with door.signed_in() as browser:
        for path in ("/", "/prefect/"):
            headers = browser.get(path).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in browser.get("/").headers["content-security-policy"]


def test_another_name_of_the_machine_is_refused(door: Door) -> None:
    """A page of a host whose name is made to point here (DNS rebinding)."""
    with door.signed_in() as browser:
        for path in ("/", "/sign-in", "/prefect/api/flows/filter"):
            assert browser.get(path, headers={"host": "evil.example"}).status_code == 421, path
    assert door.prefect.requests == []


# --- what a session may do -------------------------------------------------------------------------------------


def test_prefect_gets_its_credential_and_nothing_of_the_session(door: Door) -> None:
    with door.signed_in() as browser:
        answer = browser.post("/prefect/api/flows/filter", json={"limit": 1})
    got = answer.json()
    assert got["path"] == "/api/flows/filter"
    assert got["authorization"] == authorization(make_login())
    assert got["cookie"] is None
    assert json.loads(got["body"]) == {"limit": 1}
    assert "x-envoy-upstream-service-time" not in answer.headers


@pytest.mark.parametrize("forged", [{}, creator_headers(1, Principal(kind="user", name="owner"))])
def test_prefect_gets_the_number_of_the_request_that_creates_a_run(door: Door, forged: dict[str, str]) -> None:
    """A header of the client's does not pass: it would give the run to somebody else."""
    door.web.ledger.prefect_requests.record(Principal(kind="user", name="owner"), "POST", START, None)
    with door.signed_in() as browser:
        answer = browser.post(START, json={"parameters": {"by": "owner@acme"}}, headers=forged)
        ((number,), (name,)) = answer.json()["creator"]
        read = browser.post("/prefect/api/flows/filter", json={}, headers=forged)
    assert door.web.ledger.prefect_requests.creator(uuid.UUID(number)) == os_user()
    assert base64.b64decode(name).decode() == os_user().name
    assert read.json()["creator"] == [[], []]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_another_site_cannot_use_the_session(door: Door, origin: str | None) -> None:
    """`fetch(..., {method: "POST", body: new Blob([json])})` of a page in the operator's browser."""
    with door.signed_in() as browser:
        del browser.headers["origin"]
        headers = {"origin": origin} if origin else {"sec-fetch-site": "cross-site"}
        assert browser.post(BLOCKS, json={}, headers=headers).status_code == 403
        assert browser.post("/sign-out", data={}, headers=headers).status_code == 403
    assert door.prefect.requests == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (BLOCKS, {"include_secrets": True}),
        (BLOCKS, {"include_secrets": 1}),
        (BLOCKS, {"include_secrets": "yes"}),
        (f"{BLOCKS}?include_secrets=true", {}),
        (f"{BLOCKS}?include_secrets=", {}),
        (START, {"job_variables": {"command": "id"}}),
        (f"{START}/bulk", [{}, {"job_variables": {"env": {"A": "b"}}}]),
        ("/prefect/api/flow_runs/", {"job_variables": {"command": "id"}}),
    ],
)
def test_nobody_reads_secrets_or_names_a_command(door: Door, path: str, body: object) -> None:
    with door.signed_in() as browser:
        answer = browser.post(path, json=body)
    assert answer.status_code == 403, answer.text
    assert door.prefect.requests == []


def test_without_them_the_same_requests_pass(door: Door) -> None:
    with door.signed_in() as browser:
        for path, body in ((BLOCKS, {"include_secrets": False, "limit": 5}), (START, {"job_variables": {}})):
            answer = browser.post(path, json=body)
            assert answer.status_code == 200, answer.text
            assert json.loads(answer.json()["body"]) == body


def test_roles_decide_what_a_person_may_do(door: Door) -> None:
    grants, by = door.web.ledger.grants, home_owner(door.home)
    people = {role: Principal(kind="user", name=f"{role}-of-all") for role in Role}
    for role, person in people.items():
        grants.grant(person.name, role, None, by=by)
    read, start, change = (
        ("POST", "/prefect/api/flows/filter"),
        ("POST", START),
        ("DELETE", f"/prefect/api/flows/{RUN}"),
    )
    wanted = {Role.VIEWER: [read], Role.DEVELOPER: [read, start], Role.APPROVER: [read, start]}
    wanted[Role.ADMIN] = [read, start, change]
    for role, person in people.items():
        with door.signed_in(person) as browser:
            passed = [one for one in (read, start, change) if browser.request(*one, json={}).status_code == 200]
            assert passed == wanted[role], role
    with door.signed_in(Principal(kind="user", name="stranger")) as browser:
        answer = browser.request(*read, json={})
    assert answer.status_code == 403
    assert "needs the role viewer" in answer.json()["error"]


def test_a_role_that_is_taken_ends_what_a_session_may_do_at_once(door: Door) -> None:
    grants, by = door.web.ledger.grants, home_owner(door.home)
    grants.grant("leaver", Role.VIEWER, None, by=by)
    with door.signed_in(Principal(kind="user", name="leaver")) as browser:
        assert browser.get("/prefect/").status_code == 200
        grants.revoke("leaver", None, by=by)
        assert browser.get("/prefect/").status_code == 403


def test_requests_that_change_something_are_recorded_with_who_sent_them(door: Door) -> None:
    ann = Principal(kind="user", name="ann")
    door.web.ledger.grants.grant("ann", Role.DEVELOPER, None, by=home_owner(door.home))
    before = door.web.ledger.prefect_requests.record(ann, "POST", START, None)
    with door.signed_in(ann) as browser:
        assert browser.post(RESUME, json={}).status_code == 200
    found = door.web.ledger.prefect_requests.last_resume(RUN, before)
    assert found is not None
    assert found.name == "ann"


def test_nobody_records_a_request_that_was_not_sent(door: Door) -> None:
    """What the door asks the web service is not for others: it would be on the record as a request to Prefect."""
    before = door.web.ledger.prefect_requests.record(os_user(), "POST", "/api/another", None)
    with door.signed_in() as browser:
        for path in (f"/authorize{RESUME}", f"/authorize{START}", "/authorize"):
            assert browser.post(path, json={}).status_code == 404, path
    assert door.web.ledger.prefect_requests.last_resume(RUN, before) is None


def test_a_token_may_what_its_scope_says(door: Door) -> None:
    scope = Scope(actions=(Action.READ,))
    end = datetime.now(UTC) + timedelta(days=1)
    _, secret = door.web.ledger.tokens.create("reader", owner=os_user(), scope=scope, expires_at=end)
    with door.client as program:
        program.headers["authorization"] = f"Bearer {secret}"
        assert program.post("/prefect/api/flows/filter", json={}).status_code == 200
        assert program.post(START, json={}).status_code == 403
        door.web.ledger.tokens.revoke("reader", by="root")
        assert program.post("/prefect/api/flows/filter", json={}).status_code == 401


# --- streams, settings, restarts -------------------------------------------------------------------------------


def stream(door: Door, **headers: str) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        url = door.url.replace("http", "ws") + "/prefect/api/events/out"
        async with websockets.connect(url, subprotocols=["prefect"], additional_headers=headers) as connection:  # type: ignore[list-item]
            await connection.send(json.dumps({"type": "auth", "token": None}))
            answer: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), 30))
            return answer

    return asyncio.run(first())


def test_event_streams_of_prefects_page_are_signed_in(door: Door) -> None:
    cookie = f"headway-session={door.web.ledger.sessions.begin(os_user())}"
    assert stream(door, cookie=cookie, origin=door.url)["token"] == make_login()


def test_another_site_opens_no_stream(door: Door) -> None:
    cookie = f"headway-session={door.web.ledger.sessions.begin(os_user())}"
    for headers in ({"origin": "http://evil.example", "cookie": cookie}, {"origin": door.url}):
        with pytest.raises(websockets.InvalidStatus):
            stream(door, **headers)


def test_prefects_page_asks_for_no_password(door: Door) -> None:
    with door.signed_in() as browser:
        assert browser.get("/prefect/ui-settings").json()["login"] is False
        assert browser.get("/prefect/other").json()["login"] is True


def test_a_request_waits_while_the_web_service_restarts(door: Door) -> None:
    door.stop_web()
    process.web_socket().unlink(missing_ok=True)
    back = threading.Timer(2.0, door.serve_web)
    back.start()
    with door.client as browser:
        assert browser.get("/sign-in").status_code == 200
    back.join()


def test_idle_connections_are_closed(door: Door) -> None:
    port = int(door.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
        slow.sendall(b"POST /hooks/github HTTP/1.1\r\nHost: x\r\nX-Filler: ")
        assert b" 408 " in slow.makefile("rb").readline()


# --- TLS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "headway.example.com"])
def test_other_machines_need_tls(host: str) -> None:
    with pytest.raises(UsageError, match="without TLS"):
        process.tls_files(host, None, None)


def test_a_certificate_has_a_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="go together"):
        process.tls_files("127.0.0.1", tmp_path / "a.pem", None)
    with pytest.raises(UsageError, match="cannot be read"):
        process.tls_files("0.0.0.0", tmp_path / "a.pem", tmp_path / "a.key")


def test_the_door_speaks_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    trust = Trust(tmp_path)
    port = free_port()
    web = process.web_socket()
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    process.web_socket().symlink_to(web)
    tls = process.tls_files("127.0.0.1", trust.chain, trust.chain)
    command = process.command("127.0.0.1", port, tls, None, "")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(tmp_path / "envoy.log").open("wb")) as envoy:
        try:
            until_it_listens(port, tmp_path / "envoy.log")
            with httpx.Client(verify=str(trust.authority), trust_env=False, timeout=30) as browser:
                answer = browser.get(f"https://127.0.0.1:{port}/sign-in")
                assert answer.status_code == 421  # the service's own name is another; TLS and the route are there
                assert browser.get(f"https://127.0.0.1:{port}/prefect/").status_code == 404
        finally:
            envoy.terminate()
            envoy.wait(30)
