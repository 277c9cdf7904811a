"""What the proxy does to requests, on a real Envoy: only what the app asked for."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from blocks.targets.process.target import ProcessTarget
from headway.domain.revision import Health, Http, LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.testing.contracts import SHA, until
from tests.contracts import targets
from tests.standins import data_plane_app

pytestmark = pytest.mark.slow

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data-plane")


@pytest.fixture(scope="module")
def spec(place: Path) -> LaunchSpec:
    made = targets.bundle_spec(place).model_copy(update={"instances": 1})
    return targets.with_files(made, app=Path(data_plane_app.__file__).read_text())


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[ProcessTarget]:
    with targets.process(place / "target") as made:
        yield made


def serve(target: ProcessTarget, spec: LaunchSpec, app: str = "shop", **changes: object) -> str:
    """Launch an app with these settings, route to it, and return its URL."""
    changed = spec.model_copy(update=changes)
    revision = changed.revision(app, SHA["old"])
    target.launch(revision, changed)
    until(lambda: target.ready(revision).ready == 1)
    target.route(app, Traffic.all_to(revision))
    url = target.observe(app).url
    assert url is not None
    return url


@pytest.fixture(scope="module")
def url(target: ProcessTarget, spec: LaunchSpec) -> str:
    return serve(target, spec)


def get(url: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(url, headers=named, trust_env=False, timeout=60)


def seen_by_app(url: str, **headers: str) -> dict[str, str]:
    """Request headers that reached the app, as it got them."""
    answer = get(f"{url}/headers", **headers)
    assert answer.status_code == 200
    return dict(answer.json())


def executed(url: str, path: str) -> int:
    return int(httpx.get(f"{url}/executed", params={"path": path}, trust_env=False).json()["times"])


# --- executed once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/status?is=500", "/status?is=503", "/status?is=504"])
def test_a_request_that_fails_is_executed_once_and_answered_as_the_app_did(url: str, path: str) -> None:
    before = executed(url, path)
    for _ in range(5):  # no instance is left out because the app answers 503
        answer = get(url + path)
        assert (str(answer.status_code), answer.text) == (path[-3:], "as asked")
    assert executed(url, path) == before + 5


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_request_whose_connection_breaks_off_is_executed_once(url: str, method: str) -> None:
    before = executed(url, "/reset")
    assert httpx.request(method, f"{url}/reset", trust_env=False).status_code == 503
    assert executed(url, "/reset") == before + 1


def test_users_cannot_ask_the_proxy_for_retries_or_timeouts(url: str) -> None:
    path = "/status?is=502"
    get(url + path, x_envoy_retry_on="5xx", x_envoy_max_retries="3")
    assert executed(url, path) == 1
    assert get(f"{url}/slow?seconds=0.5", x_envoy_upstream_rq_timeout_ms="10").status_code == 200


def test_an_app_may_take_its_time_and_has_timeouts_of_its_own(
    target: ProcessTarget, spec: LaunchSpec, url: str
) -> None:
    limited = serve(target, spec, "limited", http=Http(timeout=2, retry=3))
    slow = "/slow?seconds=5"
    assert get(url + slow).status_code == 200
    assert get(limited + slow).status_code == 504
    assert executed(limited, slow) == 1
    assert messages(limited, 0.7) == ["message 0", "message 1", "message 2"]  # no limit for a websocket


def test_an_app_may_ask_for_retries(target: ProcessTarget, spec: LaunchSpec) -> None:
    retried = serve(target, spec, "retried", http=Http(retry=2))
    for path in ("/status?is=503", "/reset"):
        assert get(retried + path).status_code == 503
        assert executed(retried, path) == 3
    assert httpx.post(f"{retried}/status", trust_env=False).status_code == 503
    assert executed(retried, "/status") == 1


def test_the_settings_of_a_revision_hold_where_it_is_asked_for_by_name(target: ProcessTarget, spec: LaunchSpec) -> None:
    old = serve(target, spec, "mixed")
    limited = spec.model_copy(update={"http": Http(max_body=10)})
    new = limited.revision("mixed", SHA["new"])
    target.launch(new, limited)
    until(lambda: target.ready(new).ready == 1)
    live = target.observe("mixed").live
    assert live is not None
    target.route("mixed", Traffic(weights={live: 100}, preview=new.id))
    preview = target.observe("mixed").preview_url
    assert preview is not None
    assert httpx.post(old, content=b"x" * 20, trust_env=False).status_code == 200
    assert httpx.post(preview, content=b"x" * 20, trust_env=False).status_code == 413
    named = {"x-headway-revision": new.id}
    assert httpx.post(old, content=b"x" * 20, headers=named, trust_env=False).status_code == 413


# --- old, large and long ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["Host: shop.example.com\r\n", ""])
def test_http_1_0_is_understood(url: str, host: str) -> None:
    answer = raw(url, f"GET / HTTP/1.0\r\n{host}\r\n")
    assert answer.startswith(("HTTP/1.0 200 ", "HTTP/1.1 200 "))
    assert "transfer-encoding" not in answer.lower()


@pytest.mark.parametrize("size", [200, 100 * MEBIBYTE])
@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_of_any_size_arrive(url: str, size: int, chunked: bool) -> None:
    content = iter([b"x" * min(size, MEBIBYTE)] * max(1, size // MEBIBYTE)) if chunked else b"x" * size
    answer = httpx.post(url, content=content, trust_env=False, timeout=60)
    assert answer.json() == {"received": size}


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_above_the_limit_is_refused(target: ProcessTarget, spec: LaunchSpec, chunked: bool) -> None:
    limited = serve(target, spec, "small", http=Http(max_body=MEBIBYTE))
    for size, status in ((MEBIBYTE, 200), (MEBIBYTE + 1, 413)):
        content = iter([b"x" * (size - 9), b"x" * 9]) if chunked else b"x" * size
        assert httpx.post(limited, content=content, trust_env=False).status_code == status
    assert messages(limited, 0.1) == ["message 0", "message 1", "message 2"]


def test_large_headers_pass_in_both_directions(url: str) -> None:
    assert len(get(f"{url}/large-header?bytes=60000").headers["x-large"]) == 60000
    assert len(seen_by_app(url, x_large="y" * 60000)["x-large"]) == 60000
    assert len(get(f"{url}/large?bytes={50 * MEBIBYTE}").content) == 50 * MEBIBYTE


def test_events_come_one_by_one(url: str) -> None:
    with httpx.stream("GET", f"{url}/events?seconds=0.3", trust_env=False) as answer:
        chunks = [chunk for chunk in answer.iter_text() if chunk]
    assert chunks == ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"]


def test_a_silent_stream_ends_only_when_the_app_says_so(target: ProcessTarget, spec: LaunchSpec, url: str) -> None:
    short = serve(target, spec, "impatient", http=Http(idle_timeout=2))
    assert messages(url, 2.5) == ["message 0", "message 1", "message 2"]
    assert messages(short, 2.5) == ["message 0"]
    assert messages(short, 0.5) == ["message 0", "message 1", "message 2"]


# --- headers ---------------------------------------------------------------------------------------------------------


def test_the_app_s_response_headers_stay_as_they_are(url: str) -> None:
    answer = raw(url, "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    assert "\r\nServer: Shop/1\r\n" in answer
    assert "\r\nX-App: yes\r\n" in answer
    assert "x-envoy" not in answer.lower()


def test_an_answer_of_the_proxy_does_not_say_who_it_is(target: ProcessTarget, spec: LaunchSpec) -> None:
    address = serve(target, spec, "nothing")
    target.route("nothing", Traffic())
    answer = get(address)
    assert answer.status_code == 503
    assert "server" not in answer.headers
    assert not any(name.startswith("x-envoy") for name in answer.headers)


def test_the_app_sees_what_a_trusted_proxy_says(url: str) -> None:
    seen = seen_by_app(
        url,
        X_Forwarded_For="203.0.113.7, 198.51.100.2",
        X_Forwarded_Proto="https",
        X_Forwarded_Host="shop.example.com",
        X_Request_Id="from-the-edge",
        Forwarded="for=203.0.113.7;proto=https",
    )
    assert seen["X-Forwarded-For"] == "203.0.113.7, 198.51.100.2"
    assert seen["X-Forwarded-Proto"] == "https"
    assert seen["X-Forwarded-Host"] == "shop.example.com"
    assert seen["X-Request-Id"] == "from-the-edge"
    assert seen["Forwarded"] == "for=203.0.113.7;proto=https"


def test_without_a_proxy_the_app_sees_the_client(url: str) -> None:
    seen = seen_by_app(url, X_Envoy_Anything="1", x_envoy_internal="true")
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-request-id"]
    assert not [name for name in seen if name.lower().startswith("x-envoy")]


def test_headers_of_a_client_that_is_no_trusted_proxy_are_replaced(place: Path, spec: LaunchSpec) -> None:
    with targets.process(place / "distrustful") as target:
        target.trusted_proxies = ["192.0.2.0/24"]
        seen = seen_by_app(
            serve(target, spec),
            X_Forwarded_For="203.0.113.7",
            X_Forwarded_Proto="https",
            X_Forwarded_Host="evil.example.com",
            X_Forwarded_Port="443",
            X_Real_Ip="203.0.113.7",
            X_Request_Id="mine",
            Forwarded="for=203.0.113.7",
        )
    lower = {name.lower(): value for name, value in seen.items()}
    assert lower["x-forwarded-for"] == "127.0.0.1"
    assert lower["x-forwarded-proto"] == "http"
    assert lower["x-request-id"] != "mine"
    assert not lower.keys() & {"x-forwarded-host", "x-forwarded-port", "x-real-ip", "forwarded"}


# --- health checks ---------------------------------------------------------------------------------------------------


def test_a_health_check_may_take_as_long_as_headway_yaml_says(target: ProcessTarget, spec: LaunchSpec) -> None:
    health = Health(path="/health?slow=1.5", timeout=5, startup=20)
    address = serve(target, spec, "slow", health=health)
    assert get(address).status_code == 200


def test_an_app_that_knows_its_hosts_is_asked_by_one_of_them(target: ProcessTarget, spec: LaunchSpec) -> None:
    assert get(serve(target, spec, "local", env={"HOSTS": "shop.example.com 127.0.0.1 localhost"})).status_code == 200
    named = spec.health.model_copy(update={"host": "shop.example.com"})
    address = serve(target, spec, "named", env={"HOSTS": "shop.example.com"}, health=named)
    assert get(address).status_code == 200


def refused(target: ProcessTarget, spec: LaunchSpec, app: str, text: str) -> str:
    """Why this revision is not ready, as soon as it says this text."""
    revision: Revision = spec.revision(app, SHA["old"])
    target.launch(revision, spec)
    until(lambda: text in target.ready(revision).detail)
    return target.ready(revision).detail


def test_a_health_check_that_fails_says_what_was_sent_and_answered(target: ProcessTarget, spec: LaunchSpec) -> None:
    strict = spec.model_copy(update={"env": {"HOSTS": "shop.example.com"}})
    said = refused(target, strict, "strict", "answers 400")
    assert re.search(r"/health answers 400 to Host: 127\.0\.0\.1: unknown host 127\.0\.0\.1", said)
    slow = spec.model_copy(update={"health": Health(path="/health?slow=9", timeout=0.5)})
    assert "no answer within 0.5 s" in refused(target, slow, "sleepy", "no answer")
    login = spec.model_copy(update={"health": Health(path="/status?is=401")})
    assert "answers 401 to Host: 127.0.0.1: as asked" in refused(target, login, "private", "answers 401")


# --- plain sockets ---------------------------------------------------------------------------------------------------


def connect(url: str, tls: ssl.SSLContext | None = None) -> socket.socket:
    host, port = url.partition("://")[2].split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    return tls.wrap_socket(connection, server_hostname=host) if tls else connection


def raw(url: str, request: str) -> str:
    """The response to these bytes, until the proxy closes the connection."""
    with connect(url) as connection, connection.makefile("rb") as answer:
        connection.sendall(request.encode())
        return answer.read().decode()


def messages(url: str, seconds: float, tls: ssl.SSLContext | None = None) -> list[str]:
    """Messages of a websocket on which the app pauses for so many seconds between two of them."""
    key = base64.b64encode(os.urandom(16)).decode()
    handshake = (
        f"GET /socket?seconds={seconds} HTTP/1.1\r\nHost: {url.partition('://')[2]}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    with connect(url, tls) as connection, connection.makefile("rb") as answer:
        connection.sendall(handshake.encode())
        assert answer.readline().split()[1] == b"101"
        while answer.readline().strip():
            pass
        found = []
        while header := answer.read(2):
            found.append(answer.read(header[1]).decode())
        return found
