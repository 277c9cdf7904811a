"""Runners: how commands of apps are run on a worker, isolated from it or not."""

from __future__ import annotations

import os

from headway.domain.errors import UsageError
from headway.domain.ports import Runner
from headway.system.extensions import extensions

__all__ = ["runner"]

VARIABLE = "HEADWAY_RUNNER"
DEFAULT = "host"


def runner() -> Runner:
    """The runner that the operator chose with HEADWAY_RUNNER: `host` (default), `sandbox`, or one of another package.

    Raises UsageError, with the runners that there are, when there is none of that name, or when it does not work on
    this machine: a workload never runs with less isolation than was asked for.
    """
    name = os.environ.get(VARIABLE, DEFAULT)
    known = extensions("headway.runners")
    if name not in known:
        raise UsageError(f"{VARIABLE}: there is no runner {name!r}", f"choose one of {', '.join(known)}")
    found: Runner = known[name]()
    if refusal := found.missing():
        raise UsageError(f"{VARIABLE}={name}: {refusal.what}", refusal.hint)
    return found
