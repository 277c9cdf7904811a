"""A conversation with a git host's REST API: bounded, patient where that is safe, and obedient to its rate limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import wraps
from typing import Any, TypeVar

import httpx
import tenacity

from headway.domain.errors import GitHostError
from headway.system import tls

__all__ = ["Rest", "reads"]

Read = TypeVar("Read")

TIMEOUT = httpx.Timeout(15.0, connect=5.0)
TRIES = 3
PAGES = 50  # of a list, at most; a host that has more is asked for no more
LONGEST = 3600.0  # seconds that a host may keep us waiting
LIMITED = frozenset({httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS})


class Rest:
    """`headers` are asked for anew each time: a token may have a short life."""

    def __init__(self, url: str, headers: Callable[[], dict[str, str]]) -> None:
        self.url = url.rstrip("/")
        self._headers = headers
        self._http = httpx.Client(timeout=TIMEOUT, verify=tls.for_url(self.url), follow_redirects=False)

    def get(self, path: str, **query: Any) -> Any:
        """Raises GitHostError."""
        return self._said(self._answered("GET", path, query=query))

    def find(self, path: str) -> Any | None:
        """None when there is none. Raises GitHostError."""
        answer = self._asked("GET", path)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._said(self._checked(answer, path))

    def send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Raises GitHostError."""
        answer = self._answered(method, path, body)
        return self._said(answer) if answer.content else None

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Every entry of a list whose pages are linked, as RFC 8288 says. Raises GitHostError."""
        answer = self._answered("GET", path, query=query)
        for _ in range(PAGES):
            yield from self._said(answer)
            following = answer.links.get("next", {}).get("url", "")
            if not following.startswith(f"{self.url}/"):
                return
            answer = self._answered("GET", following.removeprefix(self.url))

    def _said(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise GitHostError(
                f"{self.url} answers {answer.status_code} and something that is not JSON",
                "is that its API, or does something else answer there?",
            ) from error

    def _answered(
        self, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, Any] | None = None
    ) -> httpx.Response:
        return self._checked(self._asked(method, path, body, query), path)

    def _asked(
        self, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, Any] | None = None
    ) -> httpx.Response:
        # What may have been done, and would be done twice, is left to the caller, who looks first.
        troubles = (httpx.ConnectError, httpx.ConnectTimeout) if method == "POST" else (httpx.TransportError,)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(troubles)
            | tenacity.retry_if_result(lambda answer: answer.is_server_error and method != "POST"),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=2.0),
            stop=tenacity.stop_after_attempt(TRIES),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        try:
            answer: httpx.Response = retrying(
                self._http.request, method, f"{self.url}{path}", json=body, params=query, headers=self._headers()
            )
        except httpx.TransportError as error:
            raise GitHostError(
                f"{self.url} does not answer ({type(error).__name__})", "is it reachable from here?"
            ) from error
        return answer

    def _checked(self, answer: httpx.Response, path: str) -> httpx.Response:
        if answer.status_code in LIMITED and (after := _wait(answer)) is not None:
            raise GitHostError(
                f"{self.url} wants to be asked again in {after:.0f} s", "its rate limit is used up", after
            )
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
            raise GitHostError(
                f"{self.url}{path} answers {answer.status_code}",
                "may the token of the block do that there?",
                refused=answer.status_code != httpx.codes.UNAUTHORIZED,  # whom it does not know it refuses everything
            )
        if not answer.is_success:
            what = f"{self.url}{path} answers {answer.status_code}: {answer.text[:200]}"
            raise GitHostError(what, "see its log", refused=answer.is_client_error)
        return answer


def reads(reader: Callable[[Any], Read]) -> Callable[[Any], Read]:
    """What makes sense of an answer raises GitHostError when there is none in it."""

    @wraps(reader)
    def careful(answer: Any) -> Read:
        try:
            return reader(answer)
        except (ValueError, LookupError, TypeError) as error:
            what = f"the git host answers something else than its API says ({type(error).__name__}: {error})"
            raise GitHostError(" ".join(what.split())[:300], "is the block of the kind that the host is of?") from error

    return careful


def _wait(answer: httpx.Response) -> float | None:
    """Seconds until the host may be asked again; None when this is no rate limit."""
    if said := answer.headers.get("retry-after"):
        try:
            seconds = float(said) if said.isdecimal() else _until(said)
        except ValueError:
            return 60.0
    elif answer.headers.get("x-ratelimit-remaining") == "0":
        reset = answer.headers.get("x-ratelimit-reset", "")
        seconds = float(reset) - time.time() if reset.isdecimal() else 60.0
    elif answer.status_code == httpx.codes.TOO_MANY_REQUESTS or "rate limit" in answer.text.lower():
        return 60.0  # GitHub's secondary limit may come with 403 and words alone
    else:
        return None
    return min(max(seconds, 1.0), LONGEST)


def _until(said: str) -> float:
    when = parsedate_to_datetime(said)
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
