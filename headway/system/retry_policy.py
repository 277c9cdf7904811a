"""Retries: how often an attempt is repeated, how long to wait in between, and when to give up.

`headway.system.http_client` uses a policy for its requests. Code with a transport of its own (the Kubernetes client,
pushes of the Docker engine) calls `RetryPolicy.run` itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity
from tenacity.wait import wait_base

__all__ = ["Retry", "RetryPolicy", "Retryable", "rate_limit_reset", "retry_after"]

T = TypeVar("T")


class Retryable(Exception):
    """A failed attempt that may be repeated, after `after` seconds if the server sent a Retry-After.

    `error` is what the caller of the last attempt gets to see; `attempts` is how many attempts there were.
    """

    def __init__(self, error: Exception, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after
        self.attempts = 1


@dataclass(frozen=True)
class Retry:
    """The attempt that comes next."""

    number: int
    pause: float  # seconds
    error: Exception  # of the attempt before


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts, pauses and limits. All times are in seconds."""

    attempts: int
    backoff: wait_base
    longest_retry_after: float = 60.0  # a server that asks for a longer pause ends the attempts at once
    deadline: float | None = None  # after the first attempt began; no attempt begins later
    sleep: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], T], before_retry: Callable[[Retry], None] = lambda _: None) -> T:
        """Call `attempt` until it raises no Retryable. Raises the last Retryable when the policy ends the attempts."""

        def pause(state: tenacity.RetryCallState) -> float:
            # In addition to the server's own pause: it asked other clients to come back then, too.
            return (_failure(state).after or 0.0) + self.backoff(state)

        def announce(state: tenacity.RetryCallState) -> None:
            before_retry(Retry(state.attempt_number + 1, state.upcoming_sleep, _failure(state).error))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            stop=self._ends,
            wait=pause,
            before_sleep=announce,
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except Retryable as failure:
            failure.attempts = retrying.statistics["attempt_number"]
            raise

    def _ends(self, state: tenacity.RetryCallState) -> bool:
        late = (
            state.seconds_since_start is not None
            and self.deadline is not None
            and (state.seconds_since_start + state.upcoming_sleep >= self.deadline)
        )
        return late or state.attempt_number >= self.attempts or self.asks_too_long(_failure(state))

    def asks_too_long(self, failure: Retryable) -> bool:
        """Whether the server asked for a pause that this policy does not wait for."""
        return (failure.after or 0.0) > self.longest_retry_after


def _failure(state: tenacity.RetryCallState) -> Retryable:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Retryable)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110: seconds or an HTTP date); None without a readable one."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    try:
        return _at_least_zero(float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def rate_limit_reset(headers: Mapping[str, str]) -> float | None:
    """Seconds until X-RateLimit-Reset, a time in seconds since 1970; None without a readable one."""
    value = next((value for name, value in headers.items() if name.lower() == "x-ratelimit-reset"), "")
    try:
        return _at_least_zero(float(value) - time.time())
    except ValueError:
        return None


def _at_least_zero(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
