"""Calls that change a target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["run_to_end"]

P = ParamSpec("P")
R = TypeVar("R")


async def run_to_end(verb: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Call a verb of a target in a thread, and wait for its end even when this task is cancelled.

    A thread cannot be stopped, and a rollback must not run beside the change that it undoes. The verbs of targets have
    deadlines.
    """
    task = asyncio.ensure_future(asyncio.to_thread(verb, *arguments, **named))
    try:
        return await asyncio.shield(task)
    except BaseException:
        await asyncio.wait([task])
        raise
