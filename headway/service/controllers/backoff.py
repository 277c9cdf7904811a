"""Backoff per host: after an error a host is not called for a while, longer after each error in a row."""

from __future__ import annotations

import time
from typing import NamedTuple

from headway.domain.errors import GitHostError, HeadwayError

__all__ = ["Backoff"]

FIRST_PAUSE = 10.0  # seconds
LONGEST_PAUSE = 600.0


class _Failure(NamedTuple):
    until: float
    pause: float
    error: str


class Backoff:
    """Tracks errors by key: the slug of a host, or the name of a preview."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def active(self, key: str) -> bool:
        """Whether the key is not to be called now."""
        failure = self._failures.get(key)
        return failure is not None and time.monotonic() < failure.until

    def failed(self, key: str, error: HeadwayError) -> None:
        """Double the pause of the key. A host's own Retry-After counts when it is longer."""
        last = self._failures.get(key)
        pause = min(2 * last.pause, LONGEST_PAUSE) if last else FIRST_PAUSE
        retry_after = error.after if isinstance(error, GitHostError) else None
        self._failures[key] = _Failure(time.monotonic() + max(retry_after or 0.0, pause), pause, error.what)

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)

    def errors(self) -> dict[str, str]:
        """Last error of each key in backoff."""
        return {key: failure.error for key, failure in self._failures.items()}
