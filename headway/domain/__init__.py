"""Frozen models, ports and errors. Imports nothing else of Headway."""

__all__ = [
    "base",
    "dependency_health",
    "errors",
    "events",
    "fencing",
    "freeze_windows",
    "git",
    "log_lines",
    "markdown",
    "measurements",
    "plan",
    "platform",
    "ports",
    "readiness",
    "refusal",
    "revision",
    "source",
    "traffic",
    "version_check",
    "workload",
]
