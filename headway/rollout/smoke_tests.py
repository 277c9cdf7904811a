"""Asks a deployed environment, through its own proxy, whether it does what it should and is what was deployed."""

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
from headway.system import tls
from headway.system.redaction import Masker

__all__ = ["run"]

REQUEST_TIMEOUT = 10.0
EXCERPT = 300
_CONFIDENTIAL = re.compile("auth|token|key|secret|cookie|password", re.IGNORECASE)


class Probe(Protocol):
    """A request and what it has to answer, as `headway.config.HttpRequest` describes it. Times in seconds."""

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


class _NotYet(Exception):
    """One try that did not pass: what was wrong with it, and the answer when there was one."""


class _Late(_NotYet):
    """There was no answer in time. When the deadline left it hardly any, that says less than the answer before."""


async def run(
    url: str,
    probes: Sequence[Probe],
    revision: Revision,
    *,
    environment: str,
    on_line: Callable[[str], None],
    secrets: Iterable[str] = (),
    headers: Mapping[str, str] = MappingProxyType({}),
) -> SmokeReport:
    """Send the probes to `url`, one after the other, each again and again until it passes or its deadline is over.

    Every failed try is said to `on_line` with the answer's status and first 300 characters; `secrets` and the values
    of confidential request headers, and of `headers` that all requests have, are masked there and in errors. Raises
    SmokeFailed with the last failure, which is not the deadline's own, of the first probe that does not pass.
    """
    started = time.monotonic()
    masker = Masker([*secrets, *headers.values(), *_confidential(probes)])
    attempts = 0
    # Without the proxies and credentials of this machine: the environment is asked as its users ask it.
    async with httpx.AsyncClient(headers=dict(headers), trust_env=False, verify=tls.for_url(url)) as client:
        for probe in probes:
            attempts += await _until_it_passes(client, url, probe, revision, environment, masker, on_line)
    return SmokeReport(
        environment=environment,
        url=url,
        probes=len(probes),
        attempts=attempts,
        seconds=time.monotonic() - started,
    )


def _confidential(probes: Iterable[Probe]) -> Iterator[str]:
    for probe in probes:
        for name, value in probe.headers.items():
            if _CONFIDENTIAL.search(name):
                yield value
                yield value.rpartition(" ")[2]  # without `Bearer`


async def _until_it_passes(
    client: httpx.AsyncClient,
    url: str,
    probe: Probe,
    revision: Revision,
    environment: str,
    masker: Masker,
    on_line: Callable[[str], None],
) -> int:
    """How many tries it took."""
    name = f"{probe.method} {probe.path}"
    started = time.monotonic()
    tries, wrong = 0, ""
    try:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_NotYet),
            stop=tenacity.stop_before_delay(probe.deadline),
            wait=tenacity.wait_exponential_jitter(initial=0.1, max=1.0, jitter=0.1),
            reraise=True,
        ):
            with attempt:
                tries += 1
                left = probe.deadline - (time.monotonic() - started)
                try:
                    await _try(client, url, probe, revision, timeout=max(0.1, min(REQUEST_TIMEOUT, left)))
                except _NotYet as failure:
                    on_line(masker(f"{environment}: {name}: try {tries}: {failure}"))
                    cut_short = isinstance(failure, _Late) and left < REQUEST_TIMEOUT
                    wrong = wrong if wrong and cut_short else str(failure)
                    raise
    except _NotYet as failure:
        times = "once" if tries == 1 else f"{tries} times in {time.monotonic() - started:.1f} s"
        raise SmokeFailed(
            masker(f"{environment}: smoke: {name}: {wrong} (tried {times})"),
            "the log of the smoke test has every answer, that of the app's instances what they thought of it",
        ) from failure
    on_line(f"{environment}: {name}: passed" + (f" at try {tries}" if tries > 1 else ""))
    return tries


async def _try(
    client: httpx.AsyncClient,
    url: str,
    probe: Probe,
    revision: Revision,
    *,
    timeout: float,  # noqa: ASYNC109 - part of what is asserted about the answer
) -> None:
    """Raises _NotYet, with everything that is wrong with the answer."""
    sent = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            answer = await client.request(
                probe.method,
                url.rstrip("/") + probe.path,
                headers=dict(probe.headers),
                content=probe.body,
                json=probe.json_body,
                timeout=timeout,
            )
    except (TimeoutError, httpx.TimeoutException) as error:
        raise _Late(f"no answer within {timeout:.1f} s") from error
    except httpx.HTTPError as error:
        raise _NotYet(f"no answer: {error or type(error).__name__}") from error
    faults = list(_faults(probe, revision, answer, time.monotonic() - sent))
    if faults:
        raise _NotYet(f"{'; '.join(faults)}; it answered {answer.status_code}: {_excerpt(answer)}")


def _excerpt(answer: httpx.Response) -> str:
    text = " ".join(answer.text.split())
    return (text[:EXCERPT] + (" ..." if len(text) > EXCERPT else "")) or "(empty)"


# --- what is wrong with an answer --------------------------------------------------------------------------------


def _faults(probe: Probe, revision: Revision, answer: httpx.Response, seconds: float) -> Iterator[str]:
    if answer.status_code != probe.expect:
        yield f"expected status {probe.expect}"
    if probe.expect_text is not None and probe.expect_text not in answer.text:
        yield f"expected the text {probe.expect_text!r}"
    if probe.expect_json is not None:
        yield from _differences(probe.expect_json, _json(answer), "")
    if probe.within is not None and seconds > probe.within:
        yield f"expected it within {probe.within:g} s, took {seconds:.2f} s"
    if probe.version:
        yield from version_errors(answer, (revision.sha, revision.id))


class _NoJson:
    """The value of a body that is no JSON: different from everything, null included."""


def _json(answer: httpx.Response) -> JsonValue | _NoJson:
    try:
        content: JsonValue = answer.json()
    except ValueError:
        return _NoJson()
    return content


def _differences(expected: JsonValue, found: JsonValue | _NoJson, where: str) -> Iterator[str]:
    """Where `found` is not what is expected. Mappings may have more keys; lists have to be as long."""
    place = where or "the body"
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
        yield f"expected {place} to be {expected!r}, is {found!r}"
