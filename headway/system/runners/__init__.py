"""Runners: how commands of apps are run on a worker, isolated from it or not."""

from __future__ import annotations

import os

from headway.domain.errors import UsageError
from headway.domain.ports import Runner
from headway.domain.refusal import Refusal
from headway.system.extensions import extensions
from headway.system.runners.host import HostRunner
from headway.system.runners.sandbox import SandboxRunner

__all__ = ["isolation", "runner"]

VARIABLE = "HEADWAY_RUNNER"
DEFAULT = "auto"
FORK_VARIABLE = "HEADWAY_FORK_RUNNER"
AUTO = "auto"


def runner(*, trusted: bool) -> Runner:
    """The runner for commands of the repository's own commits; with `trusted=False` for those of a fork.

    HEADWAY_RUNNER names it: `auto` (default) for the strongest that works on this machine, `sandbox`, `host`, or one of
    another package. Commands of a fork run isolated: in that runner if it isolates, otherwise in the strongest that
    works. Only HEADWAY_FORK_RUNNER can name `host` for them.

    Raises UsageError when there is none of that name, when it does not work on this machine, or when nothing isolates
    a fork here: a workload never runs with less isolation than was asked for.
    """
    for_forks = os.environ.get(FORK_VARIABLE, AUTO)
    if not trusted and for_forks != AUTO:
        return _named(FORK_VARIABLE, for_forks)
    ours = _named(VARIABLE, os.environ.get(VARIABLE, DEFAULT))
    if trusted or ours.isolated:
        return ours
    found = _strongest()
    if isinstance(found, Refusal):
        raise UsageError(
            f"commands of a fork run only in isolation: {found.what}",
            f"{found.hint}. {FORK_VARIABLE}=host runs them as the user of the worker, who can read its secrets",
        )
    return found


def isolation(found: Runner) -> str:
    """How commands run in this runner, in one line, and what is missing for isolation."""
    if found.isolated:
        return f"isolated by the {found.name} runner"
    refusal = SandboxRunner().missing()
    why = f"{refusal.what} ({refusal.hint})" if refusal else f"{VARIABLE} or {FORK_VARIABLE} names {found.name}"
    return f"not isolated: {why}"


def _named(variable: str, name: str) -> Runner:
    known = extensions("headway.runners")
    if name == AUTO:
        strongest = _strongest()
        return HostRunner() if isinstance(strongest, Refusal) else strongest
    if name not in known:
        raise UsageError(f"{variable}: there is no runner {name!r}", f"choose one of {', '.join([AUTO, *known])}")
    found: Runner = known[name]()
    if refusal := found.missing():
        raise UsageError(f"{variable}={name}: {refusal.what}", refusal.hint)
    return found


def _strongest() -> Runner | Refusal:
    """The isolated runner of Headway that works on this machine, or why there is none."""
    sandbox = SandboxRunner()
    return sandbox.missing() or sandbox
