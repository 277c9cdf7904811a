"""Apps on this machine, started again after a reboot before anything else of Headway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from headway.domain.errors import TargetError
from headway.system.supervisor import Supervisor

__all__ = ["start_apps"]


def start_apps(home: Path) -> Iterator[str]:
    """Start the supervisors of the targets in Headway's home directory that have programs and do not run.

    Yields a line for each. Targets whose block names another directory are left to the controller `revive`.
    """
    for programs in sorted((home / "targets").glob("*/programs")):
        supervisor = Supervisor(programs.parent)
        if not any(programs.glob("*.ini")) or supervisor.running:
            continue
        try:
            supervisor.ensure()
            yield f"apps of the target {programs.parent.name} are started again"
        except TargetError as error:  # releases are still possible, and the controller tries again
            yield f"apps of the target {programs.parent.name} are not started: {error.what}"
