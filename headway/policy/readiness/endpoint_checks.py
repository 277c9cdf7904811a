"""Checks over HTTP of a deployed app: health, errors, headers, CORS, rate limits, TLS, logs."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx

from headway.domain.dependency_health import read
from headway.domain.log_lines import LogLine
from headway.domain.readiness import Finding, failed, passed, unknown
from headway.system import tls as certificates

__all__ = ["examine", "logs"]

TIMEOUT = 5.0  # seconds for a response
BURST = 60  # requests that a rate limit should reject some of
CONCURRENCY = 8  # low, because the check is for rate limits, not for capacity
FOREIGN_ORIGIN = "https://somebody-else.example"
MISSING_PAGE = "/headway-readiness/%FF/no-such-page?id='"
PRIVATE_SUFFIXES = (
    "localhost",
    ".svc",
    ".svc.cluster.local",
    ".internal",
    ".local",
)  # of private networks
STRUCTURED_SHARE = 0.9  # of the lines; the language runtime may write others at the start


async def examine(
    url: str, *, health: str, detailed: str | None, protected: Sequence[str], headers: Mapping[str, str]
) -> dict[str, Finding]:
    """Check a test environment: some of the requests look like an attack.

    `protected` are paths that need a login. Items that cannot be checked are not in the result.
    """
    found = {"tls": _tls(url)}
    async with httpx.AsyncClient(
        base_url=url,
        headers=dict(headers),
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=CONCURRENCY),
        trust_env=False,
        verify=certificates.for_url(url),
    ) as client:
        try:
            page = await client.get("/")
            found["headers"] = _headers(page, tls=url.startswith("https:"))
            found["cors"] = _cors(await client.get("/", headers={"Origin": FOREIGN_ORIGIN}))
            found["errors"] = _errors(await client.get(MISSING_PAGE))
            found["health"] = await _health(client, health, detailed)
            if protected:
                found["authentication"] = _authentication([await client.get(path) for path in protected])
            found["rate_limits"] = await _rate_limits(client)
        except httpx.HTTPError as error:
            found["health"] = failed(f"{url} does not answer: {type(error).__name__}")
    return found


def logs(lines: Iterable[LogLine]) -> Finding | None:
    """Whether instances log one JSON object per line; None if there are too few lines."""
    texts = [text for line in lines if (text := line.text.strip())]
    if len(texts) < 5:
        return None
    structured = sum(_is_json(line) for line in texts)
    return Finding(structured >= STRUCTURED_SHARE * len(texts), f"{structured} of its last {len(texts)} lines are JSON")


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _tls(url: str) -> Finding:
    """Private addresses are unknown: a proxy in front of them may terminate TLS."""
    if url.startswith("https:"):
        return passed(url)
    host = urlsplit(url).hostname or ""
    try:
        private = ipaddress.ip_address(host).is_private
    except ValueError:
        private = host.endswith(PRIVATE_SUFFIXES) or "." not in host
    return unknown(f"{url} is a private address: the public one was not checked") if private else failed(url)


def _headers(page: httpx.Response, *, tls: bool) -> Finding:
    policy = page.headers.get("Content-Security-Policy", "")
    missing = []
    if page.headers.get("X-Content-Type-Options", "").lower() != "nosniff":
        missing.append("X-Content-Type-Options: nosniff")
    if "frame-ancestors" not in policy and "X-Frame-Options" not in page.headers:
        missing.append("X-Frame-Options, or frame-ancestors")
    if "html" in page.headers.get("Content-Type", "") and not policy:
        missing.append("Content-Security-Policy")
    if tls and "Strict-Transport-Security" not in page.headers:
        missing.append("Strict-Transport-Security")
    return failed(f"missing: {', '.join(missing)}") if missing else passed("the security headers are set")


def _cors(page: httpx.Response) -> Finding:
    allowed = page.headers.get("Access-Control-Allow-Origin")
    credentials = page.headers.get("Access-Control-Allow-Credentials", "").lower() == "true"
    if allowed == FOREIGN_ORIGIN:
        return failed("every requesting origin is allowed" + (", with credentials" if credentials else ""))
    if allowed == "*" and credentials:
        return failed("every origin is allowed, with credentials")
    return passed(f"Access-Control-Allow-Origin: {allowed}" if allowed else "other origins are not allowed")


def _errors(page: httpx.Response) -> Finding:
    if "Traceback (most recent call last)" in page.text or "\n    at " in page.text:
        return failed("the response for a missing page has a stack trace")
    client = HTTPStatus.BAD_REQUEST <= page.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return Finding(client, f"missing page: {page.status_code}")


async def _health(client: httpx.AsyncClient, health: str, detailed: str | None) -> Finding:
    answer = await client.get(health)
    if answer.status_code != HTTPStatus.OK:
        return failed(f"{health}: {answer.status_code}")
    if detailed is None:
        return failed(f"{health} answers, but headway.yaml has no health.detailed that checks dependencies")
    try:
        report = read((await client.get(detailed)).json())
    except ValueError as error:
        return failed(f"{detailed}: {error}")
    checked = ", ".join(one.name for one in report.dependencies) or "no dependencies"
    return passed(f"{detailed} checks {checked}")


def _authentication(pages: Sequence[httpx.Response]) -> Finding:
    refused = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER)
    open_ = [f"{page.url.path}: {page.status_code}" for page in pages if page.status_code not in refused]
    return failed(f"without a login: {', '.join(open_)}") if open_ else passed(f"{len(pages)} paths need a login")


async def _rate_limits(client: httpx.AsyncClient) -> Finding:
    """Check rate limits. Requests without a response do not count as unhealthy: this is more load than users make."""
    asked = await asyncio.gather(*(client.get("/") for _ in range(BURST)), return_exceptions=True)
    lost = [one for one in asked if isinstance(one, BaseException)]
    for error in lost:
        if not isinstance(error, httpx.HTTPError):
            raise error
    answers = [one for one in asked if isinstance(one, httpx.Response)]
    if any(answer.status_code == HTTPStatus.TOO_MANY_REQUESTS for answer in answers):
        return passed(f"429 within {BURST} requests")
    headers = [name for answer in answers for name in answer.headers if "ratelimit" in name.lower().replace("-", "")]
    if headers:
        return passed(f"it sends {headers[0]}")
    unanswered = f", {len(lost)} without a response" if lost else ""
    return failed(f"{BURST} requests: no 429 and no rate limit header{unanswered}")
