"""A git host's REST API: JSON, linked pages, rate limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import wait_exponential_jitter

from headway.domain.errors import GitHostError
from headway.system.http_client import Failure, Failures, HttpClient, Limits
from headway.system.retry_policy import RetryPolicy, rate_limit_reset, retry_after

__all__ = ["Rest", "below", "reads"]

Read = TypeVar("Read")

LIMITS = Limits(httpx.Timeout(15.0, connect=5.0))
RETRIES = RetryPolicy(
    attempts=3, backoff=wait_exponential_jitter(initial=0.2, max=2.0), longest_retry_after=5.0, deadline=60.0
)
# A rate limit is for the caller, which waits without keeping a thread.
FAILURES = Failures(not_processed=frozenset(), errors_not_processed=(httpx.ConnectError, httpx.ConnectTimeout))
PAGES = 50  # of a list, at most
LONGEST_RATE_LIMIT = 3600.0  # seconds
DEFAULT_RATE_LIMIT = 60.0  # seconds, without a Retry-After from the host
LIMITED = frozenset({httpx.codes.FORBIDDEN, httpx.codes.TOO_MANY_REQUESTS})


class Rest:
    """`headers` are computed for each request: a token may have a short life."""

    def __init__(self, url: str, headers: Callable[[], dict[str, str]]) -> None:
        self.url = url.rstrip("/")
        self._headers = headers
        self._http = HttpClient(self.url, LIMITS, RETRIES, self._failed, FAILURES, trust_env=True)

    def get(self, path: str, **query: Any) -> Any:
        """Raises GitHostError."""
        return self._said(self._answered("GET", path, query=query))

    def find(self, path: str) -> Any | None:
        """None when there is none. Raises GitHostError."""
        answer = self._asked("GET", path)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._said(self._checked(answer, path))

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
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
        return self._http.request(method, f"{self.url}{path}", json=body, params=query, headers=self._headers())

    def _checked(self, answer: httpx.Response, path: str) -> httpx.Response:
        if answer.status_code in LIMITED and (after := _rate_limit(answer)) is not None:
            raise GitHostError(f"{self.url}: rate limit: retry in {after:.0f} s", "its rate limit is used up", after)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
            raise GitHostError(
                f"{self.url}{path} answers {answer.status_code}",
                "may the token of the block do that there?",
                refused=answer.status_code != httpx.codes.UNAUTHORIZED,  # whom it does not know it refuses everything
            )
        if not answer.is_success:
            raise self._error_status(answer, f"{self.url}{path}")
        return answer

    def _failed(self, failure: Failure) -> GitHostError:
        if failure.response is not None:
            return self._error_status(failure.response, failure.request.partition(" ")[2])
        return GitHostError(
            f"{self.url} does not answer ({type(failure.error).__name__})", "is it reachable from here?"
        )

    def _error_status(self, answer: httpx.Response, url: str) -> GitHostError:
        what = f"{url} answers {answer.status_code}: {self._http.quote(answer.text)}"
        return GitHostError(what, "see its log", refused=answer.is_client_error)


def below(api: str, ending: str, repo: str) -> str:
    """The path of a repository at a host that is below a path: without the path of its API, less `ending`.

    At https://example.com/git/api/v1 the repository git/acme/shop is acme/shop.
    """
    prefix = urlsplit(api).path.rstrip("/").removesuffix(ending).strip("/").casefold()
    return repo.removeprefix(f"{prefix}/") if prefix else repo


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


def _rate_limit(answer: httpx.Response) -> float | None:
    """Seconds until the host accepts requests again; None when this is no rate limit."""
    headers = answer.headers
    if "retry-after" in headers:
        seconds = retry_after(headers)
    elif headers.get("x-ratelimit-remaining") == "0":
        seconds = rate_limit_reset(headers)
    elif answer.status_code == httpx.codes.TOO_MANY_REQUESTS or "rate limit" in answer.text.lower():
        seconds = None  # GitHub's secondary limit may come with 403 and words alone
    else:
        return None
    return DEFAULT_RATE_LIMIT if seconds is None else min(max(seconds, 1.0), LONGEST_RATE_LIMIT)
