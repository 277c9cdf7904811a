"""The HTTP client for every API that Headway calls: timeouts, retries, TLS, size limits, no secrets in errors.

    request ──► 2xx-4xx ──► the response, for the caller to read
       │
       ├──► not processed (no connection, 429) ──► repeated
       ├──► outcome unknown (connection lost, 5xx) ──► repeated if the request is idempotent
       └──► everything else, or no attempts left ──► the caller's own HeadwayError

What counts as "not processed" and "outcome unknown" is in `Failures`; how often and how long, in `RetryPolicy`; the
words of errors in a function of the caller that turns a `Failure` into its kind of HeadwayError.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict, Unpack

import httpx

from headway.domain.errors import HeadwayError
from headway.system import tls
from headway.system.redaction import Masker
from headway.system.retry_policy import Retryable, RetryPolicy, rate_limit_reset, retry_after

__all__ = ["DEFAULT_FAILURES", "Failure", "Failures", "HttpClient", "Limits", "Outcome", "Repeat", "tls_error"]

SERVER_ERRORS = frozenset(range(500, 600))
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
SECRET_HEADERS = frozenset({"authorization", "private-token", "cookie", "x-api-key"})


class Outcome(StrEnum):
    """What the server did with a request that failed."""

    NOT_PROCESSED = "not processed"
    UNKNOWN = "unknown"


class Repeat(StrEnum):
    """When a request may be sent again."""

    IDEMPOTENT = "after any failure: sending it twice does what sending it once does"
    IF_NOT_PROCESSED = "only after failures that prove that the server did nothing"

    @classmethod
    def of_method(cls, method: str) -> Repeat:
        return cls.IF_NOT_PROCESSED if method == "POST" else cls.IDEMPOTENT


@dataclass(frozen=True)
class Failures:
    """Failures that are retried, and whether the request may have been processed. Certificate errors never are."""

    not_processed: frozenset[int] = frozenset({httpx.codes.TOO_MANY_REQUESTS})
    unknown: frozenset[int] = SERVER_ERRORS
    errors_not_processed: tuple[type[httpx.TransportError], ...] = NEVER_SENT
    errors_unknown: tuple[type[httpx.TransportError], ...] = (httpx.TransportError,)

    def of_status(self, status: int) -> Outcome | None:
        """None for a status that the caller handles."""
        if status in self.not_processed:
            return Outcome.NOT_PROCESSED
        return Outcome.UNKNOWN if status in self.unknown else None

    def of_error(self, error: Exception) -> Outcome | None:
        """None for an error that is final."""
        if tls_error(error) is not None or isinstance(error, httpx.UnsupportedProtocol):
            return None
        if isinstance(error, self.errors_not_processed):
            return Outcome.NOT_PROCESSED
        return Outcome.UNKNOWN if isinstance(error, self.errors_unknown) else None


DEFAULT_FAILURES = Failures()


@dataclass(frozen=True)
class Failure:
    """A failed request, for the caller's error: either `response` or `error` is there."""

    request: str  # "GET /v2/"
    repeat: Repeat
    outcome: Outcome | None  # None: final, such as a wrong certificate
    response: httpx.Response | None = None
    error: Exception | None = None

    @property
    def may_be_repeated(self) -> bool:
        return self.outcome is Outcome.NOT_PROCESSED or (
            self.outcome is Outcome.UNKNOWN and self.repeat is Repeat.IDEMPOTENT
        )

    @property
    def after(self) -> float | None:
        """Seconds that the server asked to wait."""
        if self.response is None:
            return None
        after = retry_after(self.response.headers)
        if after is None and self.response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return rate_limit_reset(self.response.headers)
        return after


@dataclass(frozen=True)
class Limits:
    """Limits of one attempt. `whole` includes the DNS lookup, which httpx does not limit."""

    timeout: httpx.Timeout | float
    whole: float | None = None  # seconds
    bytes: int = 64_000_000  # of a response's body


class ClientOptions(TypedDict, total=False):
    """Options of httpx.Client."""

    headers: Mapping[str, str]
    auth: httpx.Auth
    trust_env: bool
    follow_redirects: bool
    event_hooks: dict[str, list[Callable[..., Any]]]


class ResponseTooLarge(httpx.HTTPError):
    """The body is longer than `Limits.bytes`."""


class HttpClient:
    """Requests to one server. Use it as a context manager, or close it.

    `describe` turns a Failure into the caller's HeadwayError, which `request` raises. Unless `trust_env` says
    otherwise, no proxy of the environment is used.
    """

    secrets: list[str]  # never in an error; the owner may add to it

    def __init__(
        self,
        url: str,
        limits: Limits,
        policy: RetryPolicy,
        describe: Callable[[Failure], HeadwayError],
        failures: Failures = DEFAULT_FAILURES,
        **options: Unpack[ClientOptions],
    ) -> None:
        self.url = url
        self.limits = limits
        self.policy = policy
        self.failures = failures
        self.secrets = list(_secrets_of(options.get("headers", {})))
        self._masked_secrets, self._masker = 0, Masker()
        self._describe = describe
        options.setdefault("trust_env", False)
        # A redirect or a login may lead from http to https.
        verify = tls.for_url("https://" if options.get("follow_redirects") else url)
        self._http = httpx.Client(base_url=url, timeout=limits.timeout, verify=verify, **options)

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, url: str, *, repeat: Repeat | None = None, **content: Any) -> httpx.Response:
        """The response, after as many attempts as the policy allows. Raises what `describe` returns.

        `repeat` is by the method unless given: POST is not idempotent. `content` is what httpx takes: `json`,
        `params`, `headers`, `content`.
        """
        try:
            return self.policy.run(lambda: self.attempt(method, url, repeat=repeat, **content))
        except Retryable as failure:
            raise failure.error from None

    def attempt(
        self, method: str, url: str | httpx.URL, *, repeat: Repeat | None = None, **content: Any
    ) -> httpx.Response:
        """One attempt. Raises Retryable when another one may succeed, else what `describe` returns."""
        self.secrets += [one for one in _secrets_of(content.get("headers") or {}) if one not in self.secrets]
        repeat = repeat or Repeat.of_method(method)
        request = f"{method} {url}"
        try:
            response = self._within_limits(method, url, content)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, UnicodeError) as error:
            # Not chained: the original quotes what the server sent, and that may be a secret.
            raise self._raised(Failure(request, repeat, self.failures.of_error(error), error=error)) from None
        self.check(response, request, repeat)
        return response

    def check(self, response: httpx.Response, request: str, repeat: Repeat = Repeat.IDEMPOTENT) -> None:
        """Raise for a status that is worth another attempt, as `attempt` does."""
        if outcome := self.failures.of_status(response.status_code):
            raise self._raised(Failure(request, repeat, outcome, response=response))

    @property
    def masker(self) -> Masker:
        if len(self.secrets) != self._masked_secrets:
            self._masked_secrets = len(self.secrets)
            self._masker = Masker(self.secrets)
        return self._masker

    def quote(self, text: str) -> str:
        """Text of the server, fit for an error: without secrets, on one line, cut."""
        return self.masker.quote(text)

    def _raised(self, failure: Failure) -> Exception:
        error = self._describe(failure)
        return Retryable(error, failure.after) if failure.may_be_repeated else error

    def _within_limits(self, method: str, url: str | httpx.URL, content: Mapping[str, Any]) -> httpx.Response:
        if self.limits.whole is None:
            return self._read(method, url, content)
        pool = ThreadPoolExecutor(1, "http")
        try:
            return pool.submit(self._read, method, url, content).result(self.limits.whole)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer within {self.limits.whole:g} s") from None
        finally:
            pool.shutdown(wait=False)

    def _read(self, method: str, url: str | httpx.URL, content: Mapping[str, Any]) -> httpx.Response:
        end = time.monotonic() + self.limits.whole if self.limits.whole else None
        body = bytearray()
        with self._http.stream(method, url, **content) as response:
            for piece in response.iter_bytes():
                body += piece
                if end and time.monotonic() > end:  # the caller has stopped waiting: end the thread
                    raise httpx.ReadTimeout("")
                if len(body) > self.limits.bytes:
                    raise ResponseTooLarge(f"an answer of more than {self.limits.bytes:,} bytes")
        # The body is decoded already.
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """What TLS refused, if that is the reason; None when the connection just ended."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return None if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) else cause


def _secrets_of(headers: Mapping[str, str]) -> Iterable[str]:
    """Values of headers that identify us, with and without their scheme ("Bearer")."""
    for name, value in headers.items():
        if name.lower() in SECRET_HEADERS:
            yield value
            yield value.rpartition(" ")[2]
