"""The embedded default: processes on this machine, on loopback ports, behind Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from blocks.envoy.proxy import Address
from blocks.targets._envoy_fronted import LOOPBACK, BehindEnvoy, Standing
from headway.domain.errors import CommandFailed, TargetError
from headway.domain.ports import Command
from headway.domain.revision import LaunchSpec, Revision
from headway.system import command_runner
from headway.system.supervisor import Program

__all__ = ["ProcessTarget"]

STOP = 0.1  # seconds between two looks whether a command is to be ended
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "SSL_CERT_FILE")


class ProcessTarget(BehindEnvoy):
    """Local processes behind Envoy, supervised: they outlive the flow, the worker and the shell."""

    _block_type_name = "Headway Process Target"
    _block_type_slug = "process"
    _description = "Runs apps as processes on the worker's machine, behind Envoy."

    def destroy(self) -> None:
        """End everything of this target: every app's instances, their proxies, the supervisor. Its files stay."""
        self._supervisor.shut_down()

    def _standing(self, app: str, names: Collection[str]) -> Mapping[str, Standing]:  # noqa: ARG002  # one supervisor
        states = self._supervisor.states() if self._supervisor.running else {}
        return {name: self._stands(name, states[name]) for name in names if name in states}

    def _stands(self, name: str, state: Mapping[str, str]) -> Standing:
        pid = self._supervisor.pid(name)
        given_up = ""
        if state["statename"] == "FATAL":
            given_up = f"keeps dying ({state.get('description') or 'exited too quickly'})"
        return Standing(run=str(pid) if pid else None, given_up=given_up)

    def _address(self, taken: Collection[Address]) -> Address:  # noqa: ARG002  # the kernel knows a free one
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            return LOOPBACK, int(probe.getsockname()[1])

    def _environment(self, revision: Revision, spec: LaunchSpec, port: int) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        told = {name: str(value) for name, value in spec.env.items()}
        return inherited | told | self._identity(revision.app, revision, spec, port)

    def _start(self, name: str, address: Address, revision: Revision, spec: LaunchSpec) -> None:
        self._supervisor.start(
            Program(
                name=name,
                command=spec.run,
                cwd=spec.artifact.location,
                env=self._environment(revision, spec, address[1]) | {"HEADWAY_SUPERVISED_BY": str(self._home)},
                secrets=spec.secrets,
                log=self._log(revision.app, name),
                grace=spec.stop_grace,
            )
        )

    def _end(self, app: str, names: Collection[str]) -> None:  # noqa: ARG002  # one supervisor
        self._supervisor.stop(*names)

    def missing(self, spec: LaunchSpec) -> str:
        there = spec.artifact.kind == "bundle" and Path(spec.artifact.location).is_dir()
        return "" if there else f"there is no bundle {spec.artifact.location} on this machine"

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        lost = self.missing(spec)
        if lost:
            raise TargetError(f"{spec.environment}: {lost}", "release it again")
        environment = self._environment(revision, spec, port=0)
        del environment["PORT"]
        self._make_places(revision.app)
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
        """The command keeps the lock, too: when we are killed, nobody starts another beside it."""
        with (self._place(app) / "command.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TargetError(
                    f"{spec.environment}: another command of {app} is still running", "wait for its end, or end it"
                ) from None
            yield lock.fileno()

    # --- logs --------------------------------------------------------------------------------------------------

    def _logged(self, app: str) -> list[str]:
        return sorted(file.stem for file in (self._place(app) / "logs").glob("*.log") if file.stem != f"{app}-edge")

    def _said(self, app: str, name: str, lines: int) -> list[str]:
        logs = self._place(app) / "logs"
        said: list[str] = []
        for file in (logs / f"{name}.log.1", logs / f"{name}.log"):
            with contextlib.suppress(FileNotFoundError):
                said += file.read_text(errors="replace").splitlines()
        return said[-lines:]

    def _follow(self, app: str, names: list[str]) -> Iterator[str]:
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((self._place(app) / "logs" / f"{name}.log").open()) for name in names}
            for file in files.values():
                file.seek(0, os.SEEK_END)
            while True:
                said = [(name, line) for name, file in files.items() for line in file.readlines()]
                for name, line in said:
                    yield f"{name}: {line.rstrip()}"
                if not said:
                    time.sleep(0.2)


async def _unless(stop: Event, running: Coroutine[Any, Any, command_runner.Finished]) -> int:
    """The exit code of a command that goes on until somebody stops it. Raises CommandFailed then."""
    going = asyncio.create_task(running)
    while not going.done():
        if stop.is_set():
            going.cancel()
        await asyncio.wait([going], timeout=STOP)
    if going.cancelled():
        raise CommandFailed("stopped: its processes were ended", "the run that had started it was cancelled")
    return going.result().exit_code
