"""Base of targets whose instances are behind an Envoy on the worker's machine.

Each app has a directory, `HOME/apps/APP/`, with its state and the files that Envoy reads. Envoy is a program of one
supervisord, which outlives the flow, the worker and the shell. A platform implements how instances are run.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import httpx
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr

from blocks.envoy.proxy import Address, Edge
from blocks.targets import _public_ports
from blocks.targets._app_state import AppState, InstanceState, RevisionState, endpoints
from blocks.targets._configuration_server import ConfigurationServer
from headway.domain.errors import TargetError
from headway.domain.fencing import FencingTokens
from headway.domain.log_lines import LogLine, by_time
from headway.domain.measurements import Measurements
from headway.domain.ports import Suspendable, Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic
from headway.domain.version_check import unhealthy
from headway.system import directories, machine_limits, paths, ports_in_use, tls
from headway.system.atomic_files import locked
from headway.system.supervisor import Program, Supervisor

__all__ = ["LOOPBACK", "BehindEnvoy", "InstanceStatus"]

LOOPBACK = "127.0.0.1"
RESTART = 10.0  # seconds that `route` waits for an instance which is being started again
POLL = 0.05  # seconds
WHOLE = 100  # percent
LAST_LINES = 3  # of the log of an instance that is not ready
NOT_IN_ENVOY = Refusal("Envoy sees it as unhealthy")


class InstanceStatus(NamedTuple):
    """State of an instance according to the platform."""

    run: str | None = None
    """Different each time it is started; None while it does not run."""
    failed: Refusal | None = None
    """Why it will never run."""
    unhealthy: Refusal | None = None
    """Why it is not ready, whatever its health path answers."""


class BehindEnvoy(Block, Target, Suspendable):
    """Weighted and header routing, instances, logs and metrics, independent of how instances run."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)
    counted_by: ClassVar[str] = "Envoy"

    directory: Path | None = Field(
        default=None, description="directory of its files. Default: `targets/NAME` in Headway's home directory"
    )
    host: str = Field(default=LOOPBACK, description="address that the public ports listen on")
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)

    # --- implemented by the platform ---------------------------------------------------------------------------

    @abstractmethod
    def _statuses(self, app: str, names: Collection[str]) -> Mapping[str, InstanceStatus]:
        """Status of these instances, without those that the platform does not know."""

    @abstractmethod
    def _free_address(self, taken: Collection[Address]) -> Address:
        """An unused address for a new instance, not in `taken`."""

    @abstractmethod
    def _start(self, name: str, address: Address, revision: Revision, spec: LaunchSpec) -> None:
        """Run this instance at this address. A running one is kept; a failed one is started again."""

    def _keep_running(self, names: Collection[str]) -> None:
        """Start these instances again whenever they die, however often. Others may be given up. Repeatable."""

    @abstractmethod
    def _end(self, app: str, names: Collection[str]) -> None:
        """Stop instances in parallel: SIGTERM, SIGKILL after the grace time of their spec. Idempotent."""

    @abstractmethod
    def _log_lines(self, app: str, name: str, lines: int) -> list[LogLine]:
        """Last lines of an instance's log."""

    @abstractmethod
    def _instances_with_logs(self, app: str, revision: str | None) -> list[str]:
        """Names of instances whose logs exist, ended ones too; of one revision, or of all."""

    @abstractmethod
    def _follow(self, app: str, revision: str | None, lines: int) -> Iterator[LogLine]:
        """Last lines of the instances' logs, then the new ones as they are written, of new instances too."""

    def _stopped(self, revision: Revision) -> Mapping[str, Address]:  # noqa: ARG002  # for platforms that keep none
        """Stopped instances of the revision that can be started again."""
        return {}

    # --- the port ----------------------------------------------------------------------------------------------

    def claim(self, app: str, token: int) -> None:
        with self._app(app) as state:
            state.token = self._tokens.claim(app, token, state.token)

    def observe(self, app: str) -> Observation:
        state = self._read(app)
        if not state.instances:
            return Observation(app=app, url=self._url(state.port), traffic=Traffic(), instances={})
        edge = self._running_edge(app)
        traffic, healthy = edge.traffic, edge.healthy()
        statuses = self._statuses(app, state.names())
        instances = {
            revision: tuple(
                _instance(
                    name,
                    one.address,
                    statuses.get(name, InstanceStatus()),
                    None if (revision, one.address) in healthy else NOT_IN_ENVOY,
                )
                for name, one in launched.items()
                if not one.draining
            )
            for revision, launched in state.instances.items()
        }
        return Observation(
            app=app,
            url=self._url(state.port),
            preview_url=self._url(state.preview_port) if traffic.preview else None,
            traffic=traffic,
            instances={revision: running for revision, running in instances.items() if running},
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if secret:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(secret)}", "resolve them first")
        app = revision.app
        # A rollback is tried with whatever is left.
        if revision.id not in self._read(app).carried and (refusal := self._shortage(app)):
            raise TargetError(f"{spec.environment}: {refusal.what}; nothing was changed", refusal.hint)
        with self._writing(app) as state:
            self._choose_ports(app, state, spec)
            state.specs[revision.id] = RevisionState.of(revision, spec)
            instances = self._wanted_instances(state, revision, spec)
            # An instance that was stopping runs again: a later stop of the others must not include it.
            state.stopping = [name for name in state.stopping if name not in instances]
        # Envoy must know even an instance that fails to start: retiring it waits for Envoy to report it.
        self._write_clusters(app, self._read(app))
        for name, instance in instances.items():
            self._start(name, instance.address, revision, spec)
        self._running_edge(app)

    def ready(self, revision: Revision) -> InstanceReadiness:
        app = revision.app
        state = self._read(app)
        launched = state.of(revision.id)
        instances = self._probe(app, state, revision.id)
        if all(instance.ready for instance in instances):  # Envoy, which sends the requests, must see them too
            seen = self._healthy_in_envoy(revision)
            instances = [one for one in instances if one.address in seen]
        statuses = self._statuses(app, list(launched))
        failed = next(((name, one.failed) for name, one in statuses.items() if one.failed), None)
        return InstanceReadiness(
            wanted=len(launched),
            ready=sum(instance.ready for instance in instances),
            failed=failed is not None,
            detail=self._detail(app, instances, failed),
        )

    def route(self, app: str, traffic: Traffic) -> None:
        serving = [revision for revision, weight in traffic.weights.items() if weight]
        state = self._read(app)
        if not state.port and not serving:
            return  # nothing was ever launched: nothing is routed already
        ready = {revision: self._await_one_ready(app, revision) for revision in serving}
        edge = self._running_edge(app)
        edge.await_healthy(ready)
        with self._writing(app) as state:  # fails if another writer took over during the wait
            edge.set_traffic(traffic, list(state.instances))
            state.add_carried([revision for revision, weight in traffic.weights.items() if weight == WHOLE])
        self._keep_running([name for revision in serving for name in state.of(revision)])

    def measure(self, app: str) -> Measurements:
        state = self._read(app)
        if not state.port:
            return Measurements(at=datetime.now(UTC), counts={})
        measured = self._edge(app).measure(list(state.instances))
        pid = self._supervisor.pid(f"{app}-edge")
        return measured.model_copy(update={"run": str(pid) if pid else None})

    def drain(self, revision: Revision, deadline: float) -> bool:
        addresses = {one.address for one in self._read(revision.app).of(revision.id).values()}
        return not addresses or self._running_edge(revision.app).drained(revision.id, addresses, deadline)

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        app, name = revision.app, revision.id
        with self._writing(app) as state:
            instances = state.of(name)
            leaving = list(instances)[: max(0, len(instances) - keep)]
            if not leaving and not state.stopping:
                return
            edge = self._running_edge(app)
            weight = edge.traffic.weights.get(name)
            if not keep and weight:
                raise TargetError(
                    f"{app}: {name} gets {weight} % of the traffic and cannot be retired",
                    "route to another revision first",
                )
            for one in leaving:
                instances[one].draining = True
        if leaving:
            edge.set_endpoints(name, endpoints(instances))
            addresses = {instances[one].address for one in leaving}
            edge.drained(name, addresses, state.specs[name].drain if drain is None else drain)
        remaining = self._remove_drained(revision, leaving, edge)
        self._stop(app)
        if remaining:
            edge.set_endpoints(name, endpoints(remaining))

    def forget(self, app: str) -> None:
        with self._writing(app) as state:
            if state.instances:
                raise TargetError(f"{app}: {', '.join(state.instances)} runs still", "retire it first")
            ports = {state.port, state.preview_port} - {None}
        self._stop(app)
        if ports:
            self._supervisor.stop(f"{app}-edge")
        with self._writing(app) as state:
            state.forget()
            for directory in ("envoy", "logs"):
                directories.remove(self._directory(app) / directory)
        _public_ports.release(self._directory(app), ports)

    def logs(
        self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False
    ) -> Iterator[LogLine]:
        if follow:
            yield from self._follow(app, revision, lines)
        else:
            names = self._instances_with_logs(app, revision)
            yield from by_time(line for name in names for line in self._log_lines(app, name, lines))

    def revive(self, app: str) -> bool:
        state = self._read(app)
        if not state.instances:
            return False
        was_running = self._supervisor.running
        self._supervisor.ensure()
        self._keep_running([name for revision in state.carried[:1] for name in state.of(revision)])
        return not was_running

    def suspend(self) -> None:
        self._supervisor.shut_down()

    # --- files and state ---------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        name = self._block_document_name or "default"
        return (self.directory or paths.home() / "targets" / name).absolute()

    def _directory(self, app: str) -> Path:
        return self._home / "apps" / app

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self._home)

    def _read(self, app: str) -> AppState:
        return AppState.read(self._directory(app))

    def _make_directories(self, app: str) -> None:
        for directory in ("envoy", "logs"):
            (self._directory(app) / directory).mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def _app(self, app: str) -> Iterator[AppState]:
        """The state, for one process at a time; it is written when the block ends without an error."""
        directory = self._directory(app)
        self._make_directories(app)
        with locked(directory / "lock"):
            state = self._read(app)
            yield state
            state.write(directory)

    @contextlib.contextmanager
    def _writing(self, app: str) -> Iterator[AppState]:
        """Like `_app`. Raises LockLost when another writer has claimed the app since."""
        with self._app(app) as state:
            self._tokens.check(app, state.token)
            yield state

    def _url(self, port: int | None) -> str | None:
        return f"http://{self.host}:{port}" if port else None

    # --- instances ---------------------------------------------------------------------------------------------

    def _wanted_instances(self, state: AppState, revision: Revision, spec: LaunchSpec) -> dict[str, InstanceState]:
        """The revision's instances in the state, at least as many as the spec wants; none of them drains."""
        instances = state.instances.setdefault(revision.id, {})
        stopped = [(name, address) for name, address in self._stopped(revision).items() if name not in instances]
        while len(instances) < spec.instances:
            if stopped:
                name, address = stopped.pop()
            else:
                name = f"{revision.app}-{revision.id}-{secrets.token_hex(2)}"
                address = self._free_address(state.addresses())
            instances[name] = InstanceState.at(address)
        statuses = self._statuses(revision.app, list(instances))
        for name, instance in instances.items():
            instance.draining = False  # a draining instance is as good as a new one, and warm
            if statuses.get(name, InstanceStatus()).failed:  # its address may be the cause
                instance.host, instance.port = self._free_address(state.addresses())
        return instances

    def _identity(self, app: str, revision: Revision, spec: LaunchSpec, port: int) -> dict[str, str]:
        """Environment variables that every instance gets from Headway."""
        return {
            "PORT": str(port),
            "HEADWAY_APP": app,
            "HEADWAY_ENVIRONMENT": spec.environment,
            "HEADWAY_REVISION": revision.id,
            "HEADWAY_VERSION": revision.sha,
        }

    def _probe(self, app: str, state: AppState, revision: str) -> list[Instance]:
        """Request the health path of every instance that does not drain, all at the same time."""
        probed = {name: one.address for name, one in state.of(revision).items() if not one.draining}
        if not probed:
            return []
        spec = state.specs[revision]
        statuses = self._statuses(app, list(probed))
        with (
            httpx.Client(timeout=spec.health.timeout, trust_env=False, verify=tls.for_url("http://instance")) as client,
            ThreadPoolExecutor(len(probed)) as pool,
        ):
            results = pool.map(
                lambda address: unhealthy(client, f"http://{_text(address)}{spec.health.path}", (spec.sha, revision)),
                probed.values(),
            )
            return [
                _instance(name, address, statuses.get(name, InstanceStatus()), result)
                for (name, address), result in zip(probed.items(), results, strict=True)
            ]

    def _detail(self, app: str, instances: list[Instance], failed: tuple[str, Refusal] | None) -> str:
        """Why the revision is not ready, with the last log lines of an instance."""
        if failed:
            name, reason = failed
            return f"{name} {reason}: {self._last_lines(app, name)}"
        unready = next((one for one in instances if not one.ready), None)
        if unready is None:
            return "Envoy has not seen it yet"
        last = self._last_lines(app, unready.name)
        return unready.detail + (f"; {unready.name} said: {last}" if last else "")

    def _last_lines(self, app: str, name: str) -> str:
        return " | ".join(text for line in self._log_lines(app, name, LAST_LINES) if (text := line.text.strip()))

    def _remove_drained(self, revision: Revision, leaving: list[str], edge: Edge) -> dict[str, InstanceState]:
        """Move drained instances from the state to its list of stopping ones. Returns those that remain."""
        app, name = revision.app, revision.id
        with self._writing(app) as state:
            instances = state.of(name)
            # A rollback may have launched them again meanwhile: then they stay.
            drained = [one for one in leaving if one in instances and instances[one].draining]
            for one in drained:
                del instances[one]
            state.stopping += drained  # until they have ended: an interrupted `retire` is completed by the next one
            if not instances:
                state.instances.pop(name, None)
                state.specs.pop(name, None)
                edge.set_traffic(edge.traffic.without(name), list(state.instances))
                self._write_clusters(app, state)
        return instances

    def _stop(self, app: str) -> None:
        """End the stopping instances. Without the lock: it takes as long as the app's grace."""
        stopping = self._read(app).stopping
        self._end(app, stopping)
        with self._app(app) as state:
            state.stopping = [name for name in state.stopping if name not in stopping]

    def _await_one_ready(self, app: str, revision: str) -> int:
        """Number of ready instances. Waits for an instance that has just crashed and is being restarted."""
        end = time.monotonic() + RESTART
        while True:
            state = self._read(app)
            if ready := sum(one.ready for one in self._probe(app, state, revision)):
                return ready
            if not state.of(revision) or time.monotonic() >= end:
                raise TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")
            time.sleep(POLL)

    def _healthy_in_envoy(self, revision: Revision) -> set[str]:
        """Addresses of the instances that Envoy sends requests to; none while Envoy restarts."""
        try:
            healthy = self._edge(revision.app).healthy()
        except TargetError:
            return set()
        return {_text(address) for name, address in healthy if name == revision.id}

    # --- Envoy -------------------------------------------------------------------------------------------------

    def _log(self, app: str, name: str) -> str:
        return str(self._directory(app) / "logs" / f"{name}.log")

    def _edge(self, app: str) -> Edge:
        socket = self._supervisor.socket_directory / f"{app}.admin"
        server = ConfigurationServer(self._home, self._supervisor)
        return Edge(
            app,
            self._directory(app) / "envoy",
            socket=socket,
            log=Path(self._log(app, f"{app}-edge")),
            server=server.socket,
            changed=lambda: server.notify(app),
        )

    def _shortage(self, app: str) -> Refusal | None:
        """The limit of this machine that a launch would exceed."""
        lacking = machine_limits.shortage(self._home, self.host)
        if lacking is None and self._edge(app).reads_files:
            lacking = machine_limits.inotify_shortage()
        return lacking

    def _running_edge(self, app: str) -> Edge:
        """Start Envoy with its last configuration if it does not run; return it once it answers."""
        self._make_directories(app)
        edge = self._edge(app)
        edge.prepare()
        if not edge.has_listeners:  # its files are lost, and with them the routes
            state = self._read(app)
            assert state.port
            assert state.preview_port
            edge.listen(self.host, state.port, state.preview_port)
            self._write_clusters(app, state)
        if not self._supervisor.running or not edge.answers:
            environment = {"HEADWAY_SUPERVISED_BY": str(self._home)}
            name = f"{app}-edge"
            self._supervisor.start(
                Program(name=name, command=edge.command, env=environment, log=self._log(app, name), grace=5),
                keep=True,
            )
            edge.await_start()
        return edge

    def _write_clusters(self, app: str, state: AppState) -> None:
        self._edge(app).set_clusters(
            {
                revision: (state.specs[revision].health.path, endpoints(instances))
                for revision, instances in state.instances.items()
            }
        )

    def _choose_ports(self, app: str, state: AppState, spec: LaunchSpec) -> None:
        """Set the ports of headway.yaml, or reserve some for the app. Raises TargetError when one is taken."""
        before = (state.port, state.preview_port)
        state.port = self._port(app, state, spec, "port")
        state.preview_port = self._port(app, state, spec, "preview_port")
        if (state.port, state.preview_port) != before:
            self._edge(app).listen(self.host, state.port, state.preview_port)

    def _port(self, app: str, state: AppState, spec: LaunchSpec, field: Literal["port", "preview_port"]) -> int:
        current: int | None = getattr(state, field)
        wanted: int | None = getattr(spec, field) or current
        if wanted is None:
            return _public_ports.reserve(self._directory(app), self.host, (state.port, state.preview_port))
        if wanted != current and not ports_in_use.is_free(self.host, wanted):
            raise TargetError(
                f"environments/{spec.environment}/{field}: {wanted} on {self.host} is taken by "
                f"{ports_in_use.owner(wanted)}",
                "stop it, or choose another port",
            )
        return wanted


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _instance(name: str, address: Address, status: InstanceStatus, refusal: Refusal | None) -> Instance:
    reason = status.unhealthy or refusal
    return Instance(name=name, address=_text(address), ready=reason is None, detail=str(reason or ""), run=status.run)
