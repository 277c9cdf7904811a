"""Long-running processes below supervisord: one supervisord for each directory, controlled over a Unix socket.

Each program runs below a launcher, which writes its log, ends all of its processes, and decides whether and when a
program that dies is started again: see headway.system.launcher. The launcher survives when supervisord is killed: the
next `ensure` starts another supervisord, whose launchers attach to those that still run.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from pydantic import Field
from supervisor.xmlrpc import SupervisorTransport

from headway.domain.base import Frozen
from headway.domain.errors import TargetError
from headway.system import launcher
from headway.system.atomic_files import locked, write_json
from headway.system.unix_socket import socket_directory

__all__ = ["MARK", "HealthChecks", "Program", "Supervisor"]

START_DEADLINE = 15.0  # seconds
STOP_DEADLINE = 600.0  # seconds; longer than any grace period
UP = ("STARTING", "RUNNING", "STOPPING", "BACKOFF")
DOWN = ("FATAL", "STOPPED")  # for good; EXITED ones are started again unless their launcher gave up
RETRIES = 1_000_000  # of a launcher that the kernel does not start: it may have no processes left, for a while
KILL_MARGIN = 10  # seconds that a launcher has after the grace, to end processes that ignored SIGTERM
MARK = "HEADWAY_SUPERVISED_BY"
BAD_NAME, NOT_RUNNING, ALREADY_ADDED = 10, 70, 90  # fault codes of Supervisor's XML-RPC


class HealthChecks(Frozen):
    """How the launcher answers the proxy's health checks at `port`: with `token` while the instance is healthy."""

    port: int
    token: str
    instance_port: int
    path: str
    host: str
    timeout: float = Field(description="seconds")


class Program(Frozen):
    """A shell command that Supervisor runs and restarts.

    `grace` in seconds, between SIGTERM and SIGKILL to all of its processes; `secrets` are the variables of `env`
    whose values are masked in the log.
    """

    name: str
    command: str
    cwd: str = "/"
    env: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    log: str
    grace: float = 10.0
    health: HealthChecks | None = None
    digest: str | None = Field(default=None, description="of the bundle in `cwd`; one that was changed is not started")


class Supervisor:
    """The supervisord of one directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._programs = home / "programs"
        self.socket_directory = socket_directory(home)
        self._socket = self.socket_directory / "supervisor.sock"

    def ensure(self) -> None:
        """Start supervisord unless it runs. Raises TargetError when it does not start."""
        if self.running:
            return
        self._programs.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.home / "supervisor.lock"):
            if self.running:
                return
            configuration = self.home / "supervisord.conf"
            configuration.write_text(self._configuration())
            configuration.chmod(0o600)
            self._name_present_launcher()
            started = subprocess.run(
                [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(configuration)],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", MARK: str(self.home)},
                check=False,
                timeout=START_DEADLINE,
            )
            deadline = time.monotonic() + START_DEADLINE
            while not self.running:
                if started.returncode or time.monotonic() > deadline:
                    raise TargetError(
                        f"{self.home}: supervisord does not start: {started.stderr.decode(errors='replace')[-300:]}",
                        f"its log: {self.home / 'supervisord.log'}",
                    )
                time.sleep(0.05)

    def _name_present_launcher(self) -> None:
        """Programs that were launched by another version, or from another environment, name its files."""
        for configuration in self._programs.glob("*.ini"):
            what = configuration.with_suffix(".json")
            configuration.write_text(_ini(Program.model_validate_json(what.read_text()), what))

    @property
    def running(self) -> bool:
        try:
            self._rpc.getState()
        except (OSError, Fault):
            return False
        return True

    def start(self, program: Program, *, keep: bool = False) -> None:
        """Start a program unless it runs; one that was given up is started again. See `keep`."""
        self.ensure()
        with locked(self.home / "supervisor.lock"):
            write_json(self._what(program.name), program.model_dump(mode="json"))
            (self._programs / f"{program.name}.ini").write_text(_ini(program, self._what(program.name)))
            self._rpc.reloadConfig()
            try:
                self._rpc.addProcessGroup(program.name)
            except Fault as fault:
                if fault.faultCode != ALREADY_ADDED:
                    raise TargetError(f"{program.name}: supervisord refuses it: {fault.faultString}") from fault
        if keep:
            self.keep(program.name)
        self._start_again(program.name)

    def keep(self, *names: str) -> None:
        """Start these programs again for as long as they are not stopped, however often they die."""
        for name in filter(self.knows, names):
            Path(f"{self._what(name)}.keep").touch(mode=0o600)
            self._start_again(name)

    def _start_again(self, name: str) -> None:
        """Start a program that was given up."""
        if _is_down(self._state(name)):
            Path(f"{self._what(name)}.failures").unlink(missing_ok=True)
            self._rpc.startProcess(name, False)

    def stop(self, *names: str) -> None:
        """Stop programs in parallel (SIGTERM, grace period, SIGKILL) and remove them; unknown names are ignored.

        None of their processes is left, in whatever session it is and whatever signals it ignores.
        """
        self.ensure()
        for name in names:
            self._quietly(self._rpc.stopProcess, name, False)
        self._await_stopped(set(names))
        for name in names:
            if group := launcher.running(str(self._what(name))):
                _signal(
                    lambda group=group: os.killpg(group, signal.SIGKILL)
                )  # another launcher leads it, and it took too long
            launcher.end_left_overs(str(self._what(name)), grace=0.0)
            with locked(self.home / "supervisor.lock"):
                for file in self._programs.glob(f"{name}.*"):
                    file.unlink()
                self._quietly(self._rpc.removeProcessGroup, name)
                self._rpc.reloadConfig()

    def _await_stopped(self, names: set[str]) -> None:
        """Wait. Supervisor itself sends SIGKILL at the end of the grace period."""
        deadline = time.monotonic() + STOP_DEADLINE
        while alive := [name for name in names if self._state(name).get("statename") in UP]:
            if time.monotonic() > deadline:
                raise TargetError(
                    f"{', '.join(alive)}: still running after {STOP_DEADLINE:g} s", "look at its processes"
                )
            time.sleep(0.02)

    def knows(self, name: str) -> bool:
        """Whether the program was started, and not stopped since."""
        return self._what(name).exists()

    def given_up(self, name: str) -> str | None:
        """Why the program is not started again; None while it is."""
        state = self._state(name)
        if _is_down(state):
            tries, code = launcher.failures(str(self._what(name)))
            if code == launcher.CHANGED:
                return "its bundle was changed after its build"
            return f"it ended with exit code {code}, {tries} times in a row"
        return str(state["spawnerr"]) if state.get("statename") == "BACKOFF" else None

    def _state(self, name: str) -> dict[str, Any]:
        """Supervisor's information about a program: statename, pid, exitstatus, spawnerr. Empty: it has none."""
        try:
            return dict(self._rpc.getProcessInfo(name))
        except Fault as fault:
            if fault.faultCode != BAD_NAME:
                raise TargetError(f"{name}: supervisord: {fault.faultString}") from fault
            return {}

    def pid(self, name: str) -> int | None:
        """The program's launcher: a new process after a restart, the same one after a restart of supervisord."""
        what = str(self._what(name))
        try:
            process = psutil.Process(int(Path(f"{what}.pid").read_text()))
            return process.pid if what in process.cmdline() else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def shut_down(self) -> None:
        """Stop supervisord and its programs, and those of an earlier supervisord."""
        if self.running:
            pid = self._rpc.getPID()
            self._rpc.shutdown()
            with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):  # what remains is ended below
                psutil.Process(pid).wait(60)
        self._end_orphans()

    def _what(self, name: str) -> Path:
        return self._programs / f"{name}.json"

    def _end_orphans(self) -> None:
        orphans = [process for process in psutil.process_iter() if _mark(process) == str(self.home)]
        orphans = [process for process in orphans if process.pid != os.getpid()]
        for process in orphans:
            _signal(process.terminate)
        _, alive = psutil.wait_procs(orphans, timeout=5)
        for process in alive:
            _signal(process.kill)
        psutil.wait_procs(alive, timeout=5)

    def _quietly(self, verb: Any, *arguments: object) -> None:
        try:
            verb(*arguments)
        except Fault as fault:
            if fault.faultCode not in (BAD_NAME, NOT_RUNNING):
                raise TargetError(f"{arguments[0]}: supervisord: {fault.faultString}") from fault

    @property
    def _rpc(self) -> Any:
        # The transport is not thread-safe: each call has its own.
        return ServerProxy(
            "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{self._socket}")
        ).supervisor

    def _configuration(self) -> str:
        return f"""[supervisord]
logfile={self.home}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile={self.home}/supervisord.pid
directory={self.home}
minfds=4096
[unix_http_server]
file={self._socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{self._socket}
[include]
files={self._programs}/*.ini
"""


def _is_down(state: Mapping[str, Any]) -> bool:
    name = state.get("statename")
    return name in DOWN or (name == "EXITED" and state["exitstatus"] == launcher.GAVE_UP)


def _command(what: Path) -> str:
    return f'{sys.executable} -I -S {launcher.__file__} "{what}"'.replace("%", "%%")


def _ini(program: Program, what: Path) -> str:
    return f"""[program:{program.name}]
command={_command(what)}
autostart=true
autorestart=unexpected
exitcodes={launcher.GAVE_UP}
startsecs=0
startretries={RETRIES}
stopsignal=TERM
stopwaitsecs={math.ceil(program.grace) + KILL_MARGIN}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=NONE
"""


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _signal(verb: Any) -> None:
    try:
        verb()
    except psutil.NoSuchProcess:
        return
