"""Bare processes behind a small HTTP router."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import httpx
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr

from headway.build import bundles
from headway.domain.errors import TargetError
from headway.domain.fencing import FencingTokens
from headway.domain.log_lines import LogLine
from headway.domain.measurements import Measurements
from headway.domain.ports import Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic
from headway.domain.version_check import unhealthy
from headway.system import paths
from headway_bare import processes
from headway_bare.state import AppState, Launched, Routes, changing, read, read_routes, write_routes

__all__ = ["BareTarget"]

HOST = "127.0.0.1"
PORTS = range(12_000, 20_000)  # the kernel gives those above 32767 to other programs' connections
ROUTER_START = 30.0  # seconds
POLL = 0.05  # seconds
MISSED = 5  # looks in a row that do not find a process, after which it has ended
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


class BareTarget(Block, Target):
    """Processes on the worker's machine. A process that exits is not restarted before the next launch."""

    _block_type_name = "Headway Bare Target"
    _block_type_slug = "bare"
    _description = "Runs apps as bare processes behind a small HTTP router."

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.ATOMIC_SWITCH, Capability.INSTANCES, Capability.LOGS, Capability.WEIGHTED_ROUTING}
    )

    directory: Path | None = Field(
        default=None, description="Directory of its files. Default: `targets/bare-NAME` in Headway's home."
    )
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)

    def claim(self, app: str, token: int) -> None:
        with changing(self._files(app)) as state:
            state.token = self._tokens.claim(app, token, state.token)

    def observe(self, app: str) -> Observation:
        state = read(self._files(app))
        return Observation(
            app=app,
            url=f"http://{HOST}:{state.port}" if state.port else None,
            traffic=Traffic(weights=read_routes(self._files(app)).weights),
            instances={revision: tuple(self._instances(app, state, revision)) for revision in state.revisions},
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        unresolved = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if unresolved:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(unresolved)}")
        if refusal := self.missing(spec):
            raise TargetError(f"{spec.environment}: {refusal.what}", refusal.hint)
        app = revision.app
        with self._writing(app) as state:
            wanted = spec.port or state.port or _free_port()
            if wanted != state.port:
                processes.stop([self._mark(app, "router")], grace=0)
                state.port = wanted
            launched = state.revisions.get(revision.id) or _launched(revision, spec)
            while len(launched.instances) < spec.instances:
                launched.instances[f"{app}-{revision.id}-{secrets.token_hex(2)}"] = _free_port()
            state.revisions[revision.id] = launched
        # Written before anything is started, so that a repeated launch finds the processes of an interrupted one.
        running = self._running(app, launched)
        for name, port in launched.instances.items():
            if name not in running:
                self._start(name, port, revision, spec)
        self._ensure_router(app)

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        return bundles.refusal(spec.artifact)

    def ready(self, revision: Revision) -> InstanceReadiness:
        instances = self._instances(revision.app, read(self._files(revision.app)), revision.id)
        unready = [one for one in instances if not one.ready]
        return InstanceReadiness(
            wanted=len(instances),
            ready=len(instances) - len(unready),
            failed=any(one.run is None for one in unready),
            detail=unready[0].detail if unready else "",
        )

    def route(self, app: str, traffic: Traffic) -> None:
        if traffic.headers or traffic.sticky or traffic.preview:
            raise TargetError(f"{app}: this target routes by weight only", "choose a strategy without it")
        with self._writing(app) as state:
            if not state.port and not traffic.weights:
                return  # never launched: nothing is routed already
            ports = {}
            for revision in (one for one, weight in traffic.weights.items() if weight):
                ready = [one for one in self._instances(app, state, revision) if one.ready]
                if not ready:
                    raise TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")
                ports[revision] = [state.revisions[revision].instances[one.name] for one in ready]
            write_routes(self._files(app), Routes(weights=traffic.weights, ports=ports))
        self._ensure_router(app)

    def measure(self, app: str) -> Measurements:
        """No counters: the target does not declare Capability.METRICS."""
        return Measurements(at=datetime.now(UTC), counts={})

    def drain(self, revision: Revision, deadline: float) -> bool:
        launched = read(self._files(revision.app)).revisions.get(revision.id)
        return launched is None or self._drained(revision.app, set(launched.instances.values()), deadline)

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        app, name = revision.app, revision.id
        with self._writing(app) as state:
            launched = state.revisions.get(name)
            if launched is None:
                return
            routes = read_routes(self._files(app))
            if not keep and routes.weights.get(name):
                raise TargetError(f"{app}: {name} has traffic and cannot be retired", "route to another revision first")
            leaving = dict(list(launched.instances.items())[keep:])
            routes.ports[name] = [port for port in routes.ports.get(name, []) if port not in leaving.values()]
            write_routes(self._files(app), routes)
        self._drained(app, set(leaving.values()), launched.drain if drain is None else drain)
        processes.stop([self._mark(app, one) for one in leaving], launched.stop_grace)
        with self._writing(app) as state:
            for one in leaving:
                state.revisions[name].instances.pop(one, None)
            if not state.revisions[name].instances:
                del state.revisions[name]
                routes.ports.pop(name, None)
                routes.weights.pop(name, None)
                write_routes(self._files(app), routes)

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        files = [file for file in self._logs(app) if revision is None or revision in file.stem]
        for file in files:
            yield from (LogLine(file.stem, line) for line in file.read_text(errors="replace").splitlines()[-lines:])
        if follow:
            yield from _follow(files)

    def forget(self, app: str) -> None:
        with self._writing(app) as state:
            if state.revisions:
                raise TargetError(f"{app}: {', '.join(state.revisions)} runs", "retire it first")
            processes.stop([self._mark(app, "router")], grace=5)
            state.port = None  # the token stays: an older writer is still refused
            (self._files(app) / "routes.json").unlink(missing_ok=True)
            shutil.rmtree(self._files(app) / "logs", ignore_errors=True)

    def revive(self, app: str) -> bool:
        if not read(self._files(app)).port or processes.find([self._mark(app, "router")]):
            return False
        self._ensure_router(app)
        return True

    def destroy(self) -> None:
        """End all processes of this target. Its files stay."""
        for directory in (self._home / "apps").glob("*"):
            names = ["router", *(file.stem for file in self._logs(directory.name))]
            processes.stop([self._mark(directory.name, name) for name in names], grace=2)

    # --- files -------------------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        name = f"bare-{self._block_document_name or 'default'}"
        return (self.directory or paths.home() / "targets" / name).absolute()

    def _files(self, app: str) -> Path:
        return self._home / "apps" / app

    def _log(self, app: str, name: str) -> Path:
        directory = self._files(app) / "logs"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory / f"{name}.log"

    def _logs(self, app: str) -> list[Path]:
        return sorted(file for file in (self._files(app) / "logs").glob("*.log") if file.stem != "router")

    @contextmanager
    def _writing(self, app: str) -> Iterator[AppState]:
        with changing(self._files(app)) as state:
            self._tokens.check(app, state.token)
            yield state

    # --- processes ---------------------------------------------------------------------------------------------

    def _mark(self, app: str, name: str) -> str:
        return str(self._files(app) / name)

    def _running(self, app: str, launched: Launched) -> dict[str, int]:
        """Names of the instances that run -> process id."""
        found = processes.find({self._mark(app, name) for name in launched.instances})
        return {Path(mark).name: process.pid for mark, process in found.items()}

    def _start(self, name: str, port: int, revision: Revision, spec: LaunchSpec) -> None:
        inherited = {variable: os.environ[variable] for variable in INHERITED if variable in os.environ}
        own = {
            "PORT": str(port),
            "HEADWAY_APP": revision.app,
            "HEADWAY_ENVIRONMENT": spec.environment,
            "HEADWAY_REVISION": revision.id,
            "HEADWAY_VERSION": revision.sha,
        }
        configured = {variable: str(value) for variable, value in spec.env.items()}
        processes.start(
            self._mark(revision.app, name),
            spec.run,
            cwd=Path(spec.artifact.location),
            env=inherited | configured | own,
            log=self._log(revision.app, name),
        )

    def _instances(self, app: str, state: AppState, revision: str) -> list[Instance]:
        launched = state.revisions.get(revision)
        if launched is None:
            return []
        running = self._running(app, launched)
        versions = (launched.sha, revision)
        found = []
        with httpx.Client(timeout=launched.health_timeout, trust_env=False) as client:
            for name, port in launched.instances.items():
                if name in running:
                    refusal = unhealthy(client, f"http://{HOST}:{port}{launched.health_path}", versions)
                else:
                    refusal = Refusal(f"{name} has ended: {' | '.join(_last_lines(self._log(app, name)))}")
                run = str(running[name]) if name in running else None
                detail = refusal.what if refusal else ""
                found.append(Instance(name=name, address=f"{HOST}:{port}", ready=not refusal, detail=detail, run=run))
        return found

    def _ensure_router(self, app: str) -> None:
        files, port = self._files(app), read(self._files(app)).port
        mark = self._mark(app, "router")
        if not (files / "routes.json").exists():
            write_routes(files, Routes())
        if not processes.find([mark]):
            command = f'exec "{sys.executable}" -m headway_bare.router "{files / "routes.json"}" {port}'
            processes.start(mark, command, cwd=files, env=os.environ, log=self._log(app, "router"))
        end = time.monotonic() + ROUTER_START
        missed = 0  # looks in a row that did not find it: the environment of a process is empty while it calls exec
        while not _listens(port):
            missed = 0 if processes.find([mark]) else missed + 1
            if time.monotonic() >= end or missed == MISSED:
                last = " | ".join(_last_lines(self._log(app, "router")))
                raise TargetError(f"{app}: the router does not listen on port {port}: {last}", "is the port taken?")
            time.sleep(POLL)

    def _drained(self, app: str, ports: set[int], deadline: float) -> bool:
        """Wait until the router has no connection to these ports, at most `deadline` seconds."""
        end = time.monotonic() + deadline
        while self._in_flight(app, ports):
            if time.monotonic() >= end:
                return False
            time.sleep(POLL)
        return True

    def _in_flight(self, app: str, ports: set[int]) -> int:
        return sum(
            connection.status == "ESTABLISHED" and bool(connection.raddr) and connection.raddr.port in ports
            for router in processes.find([self._mark(app, "router")]).values()
            for connection in router.net_connections("tcp")
        )


def _launched(revision: Revision, spec: LaunchSpec) -> Launched:
    return Launched(
        sha=revision.sha,
        health_path=spec.health.path,
        health_timeout=spec.health.timeout,
        stop_grace=spec.stop_grace,
        drain=spec.drain,
    )


def _free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise TargetError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free", "end some programs on this machine")


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []


def _follow(files: list[Path]) -> Iterator[LogLine]:
    streams = {file.stem: file.open(errors="replace") for file in files}
    for stream in streams.values():
        stream.seek(0, os.SEEK_END)
    while True:
        lines = [LogLine(name, line.rstrip()) for name, stream in streams.items() for line in stream.readlines()]
        yield from lines
        if not lines:
            time.sleep(0.2)
