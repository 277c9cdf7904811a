"""Commands of an app, as workloads for the runner of this worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from prefect import get_run_logger

from headway.domain.source import Source
from headway.domain.workload import Workload
from headway.scm import git
from headway.system import command_runner
from headway.system.paths import home
from headway.system.runners import isolation, runner

__all__ = ["require_runner", "workload"]


def require_runner(*, trusted: bool) -> None:
    """Log how commands of this commit will run. Raises UsageError when they cannot run here."""
    found = runner(trusted=trusted)
    level = logging.INFO if found.isolated else logging.WARNING
    get_run_logger().log(level, "commands are %s", isolation(found))


def workload(
    app: str, source: Source, command: str, env: Mapping[str, str], timeout: float, on_line: Callable[[str], None]
) -> Workload:
    """A command in the workspace of a commit. Its name is the command's; `timeout` in seconds.

    The commands of an app share a home directory, with the caches of its package managers. Those of a fork's commit
    have one of their own. The workspace's git repository uses objects of the mirror, which the command can only read.
    """
    workspace = Path(source.workspace)
    return Workload(
        command=command,
        workspace=workspace,
        env={**command_runner.clean_environment(source), **env},
        timeout=timeout,
        on_line=on_line,
        name=command,
        home=home() / "workload-homes" / app if source.trusted else Path(f"{workspace}.home"),
        services=source.trusted,
        readable=(git.mirror_of(workspace) / "objects",),
    )
