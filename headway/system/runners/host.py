"""Runner without isolation: a process of the worker's user."""

from __future__ import annotations

from typing import ClassVar

from headway.domain.errors import CommandFailed
from headway.domain.ports import Runner
from headway.domain.workload import Finished, Workload
from headway.system import command_runner

__all__ = ["HostRunner"]


class HostRunner(Runner):
    """Runs workloads as the worker's user, who can read and change everything of Headway."""

    name: ClassVar[str] = "host"
    isolated: ClassVar[bool] = False

    def missing(self) -> None:
        """Every machine has it."""

    async def run(self, workload: Workload) -> Finished:
        if not workload.network or workload.hosts is not None:
            raise CommandFailed(
                f"{workload.name}: its `network` is limited, which the host runner cannot do",
                "install what the sandbox needs (headway up names it), or remove `network` from headway.yaml",
            )
        return await command_runner.run(
            workload.command,
            cwd=workload.workspace,
            env=workload.env,
            timeout=workload.timeout,
            on_line=workload.on_line,
            secrets=workload.secrets,
            name=workload.name,
        )
