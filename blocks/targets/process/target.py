"""The default target: processes on this machine, on loopback ports, behind Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from blocks.envoy.xds import HEALTH_HOST, Address
from blocks.targets import _ports
from blocks.targets._app_state import InstanceState
from blocks.targets._envoy_fronted import LOOPBACK, BehindEnvoy
from blocks.targets._instance_checks import InstanceStatus
from blocks.targets._proxies import log_path, make_directories
from blocks.targets.process.log_file import LogFile
from headway.build import bundles
from headway.domain.errors import CommandFailed, TargetError
from headway.domain.log_lines import LogLine, by_time
from headway.domain.ports import Command
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.workload import Finished
from headway.system import command_runner
from headway.system.supervisor import HealthChecks, Program

__all__ = ["ProcessTarget"]

STOP = 0.1  # seconds between two checks whether a command was stopped
FOLLOW = 0.2  # seconds between two reads of the logs
SEALED = {"PYTHONDONTWRITEBYTECODE": "1"}  # as root, Python would change the bundle
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "SSL_CERT_FILE")


class ProcessTarget(BehindEnvoy):
    """Supervised local processes behind Envoy. They outlive the flow, the worker and the shell."""

    _block_type_name = "Headway Process Target"
    _block_type_slug = "process"
    _description = "Runs apps as processes on the worker's machine, behind Envoy."

    def destroy(self) -> None:
        """End all processes of this target: instances, proxies, the supervisor. Its files stay."""
        self._supervisor.shut_down()

    def _statuses(self, app: str, names: Collection[str]) -> Mapping[str, InstanceStatus]:  # noqa: ARG002  # one supervisor
        if not self._supervisor.running:
            return {}
        return {name: self._status(name) for name in names if self._supervisor.knows(name)}

    def _status(self, name: str) -> InstanceStatus:
        pid, reason = self._supervisor.pid(name), self._supervisor.given_up(name)
        failed = Refusal(f"keeps dying: {reason}") if reason else None
        return InstanceStatus(run=str(pid) if pid else None, failed=failed)

    def _free_address(self, app: str, taken: Collection[Address]) -> Address:  # noqa: ARG002  # reserved ones are not free
        return LOOPBACK, _ports.reserve_instance(self._directory(app))

    def _free_health_port(self, app: str) -> int:
        return _ports.reserve_instance(self._directory(app))

    def _new_identity(self) -> str:
        return secrets.token_hex(16)

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        if refusal := self.missing(spec):
            raise TargetError(f"{spec.environment}: {refusal.what}; nothing was launched", refusal.hint)
        super().launch(revision, spec)

    def _environment(self, revision: Revision, spec: LaunchSpec, port: int) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        configured = {name: str(value) for name, value in spec.env.items()}
        return SEALED | inherited | configured | self._identity(revision.app, revision, spec, port)

    def _start(self, name: str, instance: InstanceState, revision: Revision, spec: LaunchSpec) -> None:
        health = None
        if instance.health_port:
            health = HealthChecks(
                port=instance.health_port,
                token=self._read(revision.app).specs[revision.id].identity,
                instance_port=instance.port,
                path=spec.health.path,
                host=spec.health.host or HEALTH_HOST,
                timeout=spec.health.timeout,
            )
        self._supervisor.start(
            Program(
                name=name,
                command=spec.run,
                cwd=spec.artifact.location,
                env=self._environment(revision, spec, instance.port) | {"HEADWAY_SUPERVISED_BY": str(self._home)},
                secrets=spec.secrets,
                log=log_path(self._directory(revision.app), name),
                grace=spec.stop_grace,
                health=health,
                digest=spec.artifact.digest if spec.artifact.sealed else None,
            )
        )

    def _keep_running(self, names: Collection[str]) -> None:
        self._supervisor.keep(*names)

    def _end(self, app: str, names: Collection[str]) -> None:  # noqa: ARG002  # one supervisor
        self._supervisor.stop(*names)

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        return bundles.refusal(spec.artifact)

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        if refusal := self.missing(spec):
            raise TargetError(f"{spec.environment}: {refusal.what}", refusal.hint)
        environment = self._environment(revision, spec, port=0)
        del environment["PORT"]
        make_directories(self._directory(revision.app))
        with self._alone(revision.app, spec) as lock:
            running = command_runner.run(
                command.text,
                cwd=Path(spec.artifact.location),
                env=environment,
                timeout=command.timeout,
                on_line=command.on_line,
                secrets=[environment[name] for name in spec.secrets],
                pass_fds=[lock],
            )
            try:
                return asyncio.run(_unless(command.stop, running))
            except CommandFailed as failed:
                raise TargetError(f"{spec.environment}: {failed.what}", failed.hint) from failed

    @contextlib.contextmanager
    def _alone(self, app: str, spec: LaunchSpec) -> Iterator[int]:
        """Hold the app's command lock. The command inherits it, and keeps it if this process is killed."""
        with (self._directory(app) / "command.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TargetError(
                    f"{spec.environment}: another command of {app} is still running", "wait for its end, or end it"
                ) from None
            yield lock.fileno()

    # --- logs --------------------------------------------------------------------------------------------------

    def _instances_with_logs(self, app: str, revision: str | None) -> list[str]:
        names = sorted(file.stem for file in (self._directory(app) / "logs").glob("*.log"))
        return [name for name in names if name != f"{app}-edge" and (revision is None or revision in name)]

    def _log_lines(self, app: str, name: str, lines: int) -> list[LogLine]:
        try:
            with contextlib.closing(LogFile(Path(log_path(self._directory(app), name)))) as log:
                return [LogLine.stamped(name, line) for line in log.last(lines)]
        except FileNotFoundError:
            return []

    def _follow(self, app: str, revision: str | None, lines: int) -> Iterator[LogLine]:
        with contextlib.ExitStack() as stack:
            logs: dict[str, LogFile] = {}

            def open_new(*, from_start: bool) -> None:
                for name in self._instances_with_logs(app, revision):
                    if name not in logs:
                        log = LogFile(Path(log_path(self._directory(app), name)), from_start=from_start)
                        logs[name] = stack.enter_context(contextlib.closing(log))

            open_new(from_start=False)
            yield from by_time(LogLine.stamped(name, line) for name, log in logs.items() for line in log.last(lines))
            while True:
                new = by_time(LogLine.stamped(name, line) for name, log in logs.items() for line in log.new())
                yield from new
                open_new(from_start=True)
                if not new:
                    time.sleep(FOLLOW)


async def _unless(stop: Event, running: Coroutine[Any, Any, Finished]) -> int:
    """Exit code of the command. Raises CommandFailed when `stop` is set before it ends."""
    task = asyncio.create_task(running)
    while not task.done():
        if stop.is_set():
            task.cancel()
        await asyncio.wait([task], timeout=STOP)
    if task.cancelled():
        raise CommandFailed("stopped: its processes were ended", "the run that had started it was cancelled")
    return task.result().exit_code
