"""What a deployed app shows to whoever asks it: health, errors, headers, CORS, rate limits, TLS, logs."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx

from headway.domain.dependency_health import read
from headway.domain.readiness import Finding, failed, passed, unknown
from headway.system import tls as certificates

__all__ = ["examine", "logs"]

TIMEOUT = 5.0  # seconds for an answer
MANY = 60  # requests in a row that somebody should mind
SIDE_BY_SIDE = 8  # of them: whether anybody minds is asked, not whether it can be overrun
SOMEBODY = "https://somebody-else.example"
NOWHERE = "/headway-readiness/%FF/no-such-page?id='"
NEARBY = ("localhost", ".svc", ".svc.cluster.local", ".internal", ".local")  # names that only some networks know
STRUCTURED = 0.9  # of the lines: a language's own first words are none of ours


async def examine(
    url: str, *, health: str, detailed: str | None, protected: Sequence[str], headers: Mapping[str, str]
) -> dict[str, Finding]:
    """Ask an environment that is nobody's but ours: some of the requests are what an attacker sends.

    `protected` are paths that nobody may read without saying who they are. Items that cannot be told are left out.
    """
    found = {"tls": _tls(url)}
    async with httpx.AsyncClient(
        base_url=url,
        headers=dict(headers),
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=SIDE_BY_SIDE),
        trust_env=False,
        verify=certificates.for_url(url),
    ) as client:
        try:
            page = await client.get("/")
            found["headers"] = _headers(page, tls=url.startswith("https:"))
            found["cors"] = _cors(await client.get("/", headers={"Origin": SOMEBODY}))
            found["errors"] = _errors(await client.get(NOWHERE))
            found["health"] = await _health(client, health, detailed)
            if protected:
                found["authentication"] = _authentication([await client.get(path) for path in protected])
            found["rate_limits"] = await _rate_limits(client)
        except httpx.HTTPError as error:
            found["health"] = failed(f"{url} does not answer: {type(error).__name__}")
    return found


def logs(lines: Iterable[str]) -> Finding | None:
    """Whether instances write JSON, a line each; None when they have said too little."""
    said = [line.partition(": ")[2].strip() for line in lines]
    said = [line for line in said if line]
    if len(said) < 5:
        return None
    structured = sum(_is_json(line) for line in said)
    return Finding(structured >= STRUCTURED * len(said), f"{structured} of its last {len(said)} lines are JSON")


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _tls(url: str) -> Finding:
    """Where only machines nearby can ask, something else is in front of it, which may speak TLS."""
    if url.startswith("https:"):
        return passed(url)
    host = urlsplit(url).hostname or ""
    try:
        nearby = ipaddress.ip_address(host).is_private
    except ValueError:
        nearby = host.endswith(NEARBY) or "." not in host
    return unknown(f"{url} is not what users ask: what is in front of it was not asked") if nearby else failed(url)


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
    return failed(f"missing: {', '.join(missing)}") if missing else passed("what browsers look for is there")


def _cors(page: httpx.Response) -> Finding:
    allowed = page.headers.get("Access-Control-Allow-Origin")
    credentials = page.headers.get("Access-Control-Allow-Credentials", "").lower() == "true"
    if allowed == SOMEBODY:
        return failed("any origin that asks is allowed" + (", with credentials" if credentials else ""))
    if allowed == "*" and credentials:
        return failed("every origin is allowed, with credentials")
    return passed(f"Access-Control-Allow-Origin: {allowed}" if allowed else "other origins are not allowed")


def _errors(page: httpx.Response) -> Finding:
    if "Traceback (most recent call last)" in page.text or "\n    at " in page.text:
        return failed("a page that is not there shows where the program failed")
    client = HTTPStatus.BAD_REQUEST <= page.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    return Finding(client, f"a page that is not there: {page.status_code}")


async def _health(client: httpx.AsyncClient, health: str, detailed: str | None) -> Finding:
    answer = await client.get(health)
    if answer.status_code != HTTPStatus.OK:
        return failed(f"{health}: {answer.status_code}")
    if detailed is None:
        return failed(f"{health} says that it runs; headway.yaml has no health.detailed that says more")
    try:
        said = read((await client.get(detailed)).json())
    except ValueError as error:
        return failed(f"{detailed}: {error}")
    checked = ", ".join(one.name for one in said.dependencies) or "nothing: it depends on nothing"
    return passed(f"{detailed} checks {checked}")


def _authentication(pages: Sequence[httpx.Response]) -> Finding:
    refused = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER)
    open_ = [f"{page.url.path}: {page.status_code}" for page in pages if page.status_code not in refused]
    return failed(f"without a login: {', '.join(open_)}") if open_ else passed(f"{len(pages)} paths ask who it is")


async def _rate_limits(client: httpx.AsyncClient) -> Finding:
    """What goes unanswered here says nothing of the app's health: it was asked for too much."""
    asked = await asyncio.gather(*(client.get("/") for _ in range(MANY)), return_exceptions=True)
    lost = [one for one in asked if isinstance(one, BaseException)]
    for error in lost:
        if not isinstance(error, httpx.HTTPError):
            raise error
    answers = [one for one in asked if isinstance(one, httpx.Response)]
    if any(answer.status_code == HTTPStatus.TOO_MANY_REQUESTS for answer in answers):
        return passed(f"429 within {MANY} requests")
    told = [name for answer in answers for name in answer.headers if "ratelimit" in name.lower().replace("-", "")]
    if told:
        return passed(f"it says {told[0]}")
    unanswered = f", {len(lost)} without an answer" if lost else ""
    return failed(f"{MANY} requests: no 429, and no word of a limit{unanswered}")
