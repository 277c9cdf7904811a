"""Readiness checks of a deployed app's endpoints, with a real server that passes or fails them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from headway.domain.log_lines import LogLine
from headway.domain.readiness import Finding
from headway.policy.readiness import endpoint_checks


class App(BaseHTTPRequestHandler):
    """Passes every check by default."""

    careless: ClassVar[bool] = False
    overrun: ClassVar[bool] = False  # closes connections under load
    asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.overrun and path == "/" and self.asked > 30:
            self.close_connection = True
        elif self.careless:
            self._answer(*self._carelessly(path))
        else:
            self._answer(*self._carefully(path))

    def _carefully(self, path: str) -> tuple[int, str, dict[str, str]]:
        type(self).asked += 1
        headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
        }
        if path == "/" and self.asked > 40:
            return 429, "slow down", headers
        body = {"status": "ok", "checks": {"database": {"status": "ok"}}}
        known = {"/": "<h1>hello</h1>", "/health": "{}", "/detailed": json.dumps(body)}
        if path == "/admin":
            return 401, "who are you?", headers
        return (200, known[path], headers) if path in known else (404, "no such page", headers)

    def _carelessly(self, path: str) -> tuple[int, str, dict[str, str]]:
        origin = self.headers.get("Origin", "")
        headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"} if origin else {}
        if path in ("/", "/health", "/admin", "/detailed"):
            return 200, "<h1>hello</h1>", headers
        return 500, "Traceback (most recent call last)\nValueError", headers

    def _answer(self, status: int, body: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # five, as it is by default, drops connections when a machine is busy


@contextmanager
def serving(*, careless: bool, overrun: bool = False) -> Iterator[str]:
    handler = type("Handler", (App,), {"careless": careless, "overrun": overrun, "asked": 0})
    server = Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def examined(url: str, detailed: str | None = "/detailed") -> dict[str, Finding]:
    return await endpoint_checks.examine(url, health="/health", detailed=detailed, protected=["/admin"], headers={})


async def test_app_that_meets_every_endpoint_check() -> None:
    with serving(careless=False) as url:
        found = await examined(url)
    assert found.pop("tls") == (None, f"{url} is a private address: the public one was not checked")
    assert {name: finding.passes for name, finding in found.items()} == dict.fromkeys(
        ("headers", "cors", "errors", "health", "authentication", "rate_limits"), True
    )
    assert found["health"].evidence == "/detailed checks database"
    assert found["rate_limits"].evidence == "429 within 60 requests"


async def test_app_that_fails_endpoint_checks() -> None:
    with serving(careless=True) as url:
        found = await examined(url)
    said = {name: finding.evidence for name, finding in found.items() if finding.passes is False}
    assert said == {
        "headers": "missing: X-Content-Type-Options: nosniff, X-Frame-Options, or frame-ancestors, "
        "Content-Security-Policy",
        "cors": "every requesting origin is allowed, with credentials",
        "errors": "the response for a missing page has a stack trace",
        "health": said["health"],
        "authentication": "without a login: /admin: 200",
        "rate_limits": "60 requests: no 429 and no rate limit header",
    }
    assert said["health"].startswith("/detailed: ")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://shop.example.com", True),
        ("https://10.0.0.1", True),
        ("http://shop.example.com", False),
        ("http://93.184.215.14", False),
        ("http://10.0.0.1:8080", None),
        ("http://[::1]:8080", None),
        ("http://shop.shops.svc.cluster.local", None),
        ("http://shop", None),
    ],
)
def test_tls_is_checked_at_the_public_url(url: str, wanted: bool | None) -> None:
    assert endpoint_checks._tls(url).passes is wanted


async def test_overload_by_the_checks_does_not_count_as_unhealthy() -> None:
    with serving(careless=False, overrun=True) as url:
        found = await examined(url)
    assert found["health"].passes
    assert not found["rate_limits"].passes
    assert found["rate_limits"].evidence.startswith("60 requests: no 429 and no rate limit header, ")
    assert found["rate_limits"].evidence.endswith(" without a response")


async def test_health_without_dependencies_is_reported() -> None:
    with serving(careless=False) as url:
        found = await examined(url, detailed=None)
    assert not found["health"].passes
    assert "no health.detailed" in found["health"].evidence


async def test_unreachable_app_fails_the_health_check() -> None:
    found = await examined("http://127.0.0.1:9")
    assert found["health"] == (False, "http://127.0.0.1:9 does not answer: ConnectError")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([f'{{"level": "info", "n": {n}}}' for n in range(10)], True),
        ([f"GET / {n}" for n in range(10)], False),
        (["started", *[f'{{"n": {n}}}' for n in range(20)]], True),
        (["started"], None),
    ],
)
def test_logs_are_structured_when_they_are_json(lines: list[str], wanted: bool | None) -> None:
    found = endpoint_checks.logs([LogLine("shop-1", line) for line in lines])
    assert (found and found.passes) is wanted
