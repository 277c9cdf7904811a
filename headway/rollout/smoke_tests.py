"""Smoke tests: requests to a deployed environment, through its proxy, that check its answers and its version."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import httpx
import tenacity
from pydantic import JsonValue

from headway.domain.errors import SmokeFailed
from headway.domain.revision import Revision
from headway.domain.source import SmokeReport
from headway.domain.version_check import version_errors
from headway.rollout.own_requests import LATE, OwnRequests
from headway.system import tls
from headway.system.redaction import Masker

__all__ = ["run"]

REQUEST_TIMEOUT = 10.0
EXCERPT = 300
PASSING = (  # client errors that another attempt may not get
    httpx.codes.REQUEST_TIMEOUT,
    httpx.codes.CONFLICT,
    httpx.codes.LOCKED,
    httpx.codes.FAILED_DEPENDENCY,
    httpx.codes.TOO_EARLY,
    httpx.codes.TOO_MANY_REQUESTS,
)
_CONFIDENTIAL = re.compile("auth|token|key|secret|cookie|password", re.IGNORECASE)


class SmokeTest(Protocol):
    """A request and the response that it has to get, as `headway.config.HttpRequest` has it. Times in seconds."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> str | None: ...
    @property
    def json_body(self) -> JsonValue: ...
    @property
    def expect(self) -> int: ...
    @property
    def expect_json(self) -> dict[str, JsonValue] | None: ...
    @property
    def expect_text(self) -> str | None: ...
    @property
    def within(self) -> float | None: ...
    @property
    def version(self) -> bool: ...
    @property
    def deadline(self) -> float: ...


class _Failed(Exception):
    """A failed attempt: what was wrong, and the response if there was one."""


class _Final(_Failed):
    """Another attempt would get the same response: the deployed version itself refuses the request."""


class _TimedOut(_Failed):
    """No response in time. Near the deadline, the failure of the previous attempt is reported instead."""


async def run(
    url: str,
    tests: Sequence[SmokeTest],
    revision: Revision,
    *,
    environment: str,
    on_line: Callable[[str], None],
    secrets: Iterable[str] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
    own: OwnRequests | None = None,
) -> SmokeReport:
    """Run smoke tests against `url`, one after the other; each is repeated until it passes or its deadline is over.

    A client error such as 404 of the right version is final.

    `on_line` gets every failed attempt with the response's status and first 300 characters. `secrets`, the values of
    confidential request headers, and `headers` of all requests are masked there and in errors. `own` counts them.

    Raises SmokeFailed with the last failure of the first test that does not pass.
    """
    started = time.monotonic()
    masker = Masker([*secrets, *headers.values(), *_confidential(tests)])
    attempts = 0
    # As users do: without the proxies and credentials of this machine.
    transport = (own or OwnRequests()).transport(tls.for_url(url))
    async with httpx.AsyncClient(headers=dict(headers), transport=transport, trust_env=False) as client:
        for test in tests:
            attempts += await _repeat_until_passed(client, url, test, revision, environment, masker, on_line)
    return SmokeReport(
        environment=environment,
        url=url,
        probes=len(tests),
        attempts=attempts,
        seconds=time.monotonic() - started,
    )


def _confidential(tests: Iterable[SmokeTest]) -> Iterator[str]:
    for test in tests:
        for name, value in test.headers.items():
            if _CONFIDENTIAL.search(name):
                yield value
                yield value.rpartition(" ")[2]  # without `Bearer`


async def _repeat_until_passed(
    client: httpx.AsyncClient,
    url: str,
    test: SmokeTest,
    revision: Revision,
    environment: str,
    masker: Masker,
    on_line: Callable[[str], None],
) -> int:
    """Number of attempts until it passed. Raises SmokeFailed."""
    name = f"{test.method} {test.path}"
    started = time.monotonic()
    attempts, reason = 0, ""
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _Failed) and not isinstance(error, _Final)
            ),
            stop=tenacity.stop_before_delay(test.deadline),
            wait=tenacity.wait_exponential_jitter(initial=0.1, max=1.0, jitter=0.1),
            reraise=True,
        ):
            with attempt:
                attempts += 1
                left = test.deadline - (time.monotonic() - started)
                try:
                    await _attempt(client, url, test, revision, timeout=max(0.1, min(REQUEST_TIMEOUT, left)))
                except _Failed as failure:
                    on_line(masker(f"{environment}: {name}: attempt {attempts}: {failure}"))
                    cut_short = isinstance(failure, _TimedOut) and left < REQUEST_TIMEOUT
                    reason = reason if reason and cut_short else str(failure)
                    raise
    except _Failed as failure:
        times = "once" if attempts == 1 else f"{attempts} times in {time.monotonic() - started:.1f} s"
        raise SmokeFailed(
            masker(f"{environment}: smoke: {name}: {reason} (tried {times})"),
            "the log of the smoke test has every response; see also the app's log: headway logs APP ENV",
        ) from failure
    on_line(f"{environment}: {name}: passed" + (f" at attempt {attempts}" if attempts > 1 else ""))
    return attempts


async def _attempt(
    client: httpx.AsyncClient,
    url: str,
    test: SmokeTest,
    revision: Revision,
    *,
    timeout: float,  # noqa: ASYNC109 - part of what is asserted about the answer
) -> None:
    """Raises _Failed, with everything that is wrong with the response."""
    sent = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            answer = await client.request(
                test.method,
                url.rstrip("/") + test.path,
                headers=dict(test.headers),
                content=test.body,
                json=test.json_body,
                timeout=timeout + LATE,  # ours ends first, so that a late answer is still counted
            )
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _TimedOut(f"no answer within {timeout:.1f} s") from error
    except httpx.HTTPError as error:
        raise _Failed(f"no answer: {error or type(error).__name__}") from error
    errors = list(_errors(test, revision, answer, time.monotonic() - sent))
    if errors:
        failed = _Final if _refuses(test, revision, answer) else _Failed
        raise failed(f"{'; '.join(errors)}; it answered {answer.status_code}: {_excerpt(answer)}")


def _refuses(test: SmokeTest, revision: Revision, answer: httpx.Response) -> bool:
    """Whether the right version answers that this request is wrong. A proxy or an old version may still change."""
    wrong = answer.is_client_error and answer.status_code not in (test.expect, *PASSING)
    return wrong and not any(version_errors(answer, (revision.sha, revision.id)))


def _may_pass_later(error: BaseException) -> bool:
    return isinstance(error, _Failed) and not isinstance(error, _Final)


def _excerpt(answer: httpx.Response) -> str:
    text = " ".join(answer.text.split())
    return (text[:EXCERPT] + (" ..." if len(text) > EXCERPT else "")) or "(empty)"


# --- errors of a response --------------------------------------------------------------------------------------


def _errors(test: SmokeTest, revision: Revision, answer: httpx.Response, seconds: float) -> Iterator[str]:
    if answer.status_code != test.expect:
        yield f"expected status {test.expect}"
    if test.expect_text is not None and test.expect_text not in answer.text:
        yield f"expected the text {test.expect_text!r}"
    if test.expect_json is not None:
        yield from _differences(test.expect_json, _json(answer), "")
    if test.within is not None and seconds > test.within:
        yield f"expected it within {test.within:g} s, took {seconds:.2f} s"
    if test.version:
        yield from version_errors(answer, (revision.sha, revision.id))


class _NoJson:
    """Stands for a body that is no JSON; it differs from every value, null included."""


def _json(answer: httpx.Response) -> JsonValue | _NoJson:
    try:
        content: JsonValue = answer.json()
    except ValueError:
        return _NoJson()
    return content


def _differences(expected: JsonValue, found: JsonValue | _NoJson, where: str) -> Iterator[str]:
    """Differences of `found` from what is expected. Objects may have more keys; lists must have the same length."""
    subject = where or "the body"
    if isinstance(found, _NoJson):
        yield "expected JSON"
    elif isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            inner = f"{where}/{key}" if where else key
            if key in found:
                yield from _differences(value, found[key], inner)
            else:
                yield f"expected {inner}, which is not there"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (value, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(value, other, f"{where}/{index}" if where else str(index))
    # Python takes true for 1; JSON does not.
    elif isinstance(expected, bool) is not isinstance(found, bool) or expected != found:
        yield f"expected {subject} to be {expected!r}, is {found!r}"
