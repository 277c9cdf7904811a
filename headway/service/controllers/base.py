"""Base class of the background controllers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, TypeAlias

from headway.domain.errors import HeadwayError, ServiceUnavailable

__all__ = ["OK", "Controller", "Report", "collect_error"]

OK = "ok"

Report: TypeAlias = Callable[[str, str], None]
"""Receives the name of a controller and `OK`, or what went wrong."""


class Controller(ABC):
    """Compares recorded state with actual state and corrects the difference, again and again."""

    name: ClassVar[str]
    """Key of this controller in the checks of `GET /health`."""
    interval: ClassVar[float]
    """Seconds between two calls of `reconcile`."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        """Set it to have `reconcile` called before the interval has passed. The runner clears it before each call."""

    @abstractmethod
    async def reconcile(self) -> list[str]:
        """Run once. Return a log line for each thing that was done or is wrong.

        Must be safe to repeat, and to break off at any point: the next call starts from what is recorded. Raise
        HeadwayError when nothing could be done.
        """


@contextmanager
def collect_error(subject: str, lines: list[str]) -> Iterator[None]:
    """Append the error of one subject to `lines`, so that the other subjects get their turn.

    ServiceUnavailable passes through: without the Prefect server none can be reconciled.
    """
    try:
        yield
    except ServiceUnavailable:
        raise
    except HeadwayError as error:
        lines.append(f"{subject}: {error.what}")
