"""Waits for a platform that does not answer, such as an API server that restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headway.domain.errors import TargetUnavailable

__all__ = ["WITHIN", "answered"]

R = TypeVar("R")
WITHIN = 600.0  # seconds, like `progress_deadline` by default
POLL = 2.0  # seconds; the target has retried for longer than that


async def answered(
    call: Callable[[], Awaitable[R]],
    *,
    on_line: Callable[[str], None],
    within: float = WITHIN,
    meanwhile: Callable[[], None] = lambda: None,
) -> R:
    """The result of `call`, which is repeated while the platform does not answer, for at most `within` seconds.

    `meanwhile` is called before each attempt but the first; it may raise. Raises the last TargetUnavailable.
    """
    end: float | None = None
    while True:
        try:
            result = await call()
        except TargetUnavailable as error:
            if end is None:
                end = time.monotonic() + within
                on_line(f"{error.what}: waiting for it, at most {within:g} s")
            if time.monotonic() >= end:
                raise
        else:
            if end is not None:
                on_line("it answers again")
            return result
        await asyncio.sleep(min(POLL, within))
        meanwhile()
