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
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr, field_validator

from blocks.envoy.proxy import Edge
from blocks.envoy.xds import Address
from blocks.targets import _ports
from blocks.targets._app_state import AppState, InstanceState, RevisionState, endpoints
from blocks.targets._instance_checks import InstanceStatus, address_text, as_instance, check_all, public_refusal
from blocks.targets._proxies import Proxies, make_directories
from blocks.targets._receipts import RequiresReceipts
from headway.domain.errors import TargetError
from headway.domain.fencing import FencingTokens
from headway.domain.log_lines import LogLine, by_time
from headway.domain.measurements import Measurements
from headway.domain.ports import Suspendable, Target
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic
from headway.system import directories, machine_limits, paths, ports_in_use
from headway.system.atomic_files import locked
from headway.system.supervisor import Supervisor

__all__ = ["LOOPBACK", "BehindEnvoy"]

LOOPBACK = "127.0.0.1"
LOCAL = ["127.0.0.0/8", "::1/128"]
RESTART = 10.0  # seconds that `route` waits for an instance which is being started again
POLL = 0.05  # seconds
WHOLE = 100  # percent
LAST_LINES = 3  # of the log of an instance that is not ready
NOT_IN_ENVOY = Refusal("Envoy sees it as unhealthy")


class BehindEnvoy(RequiresReceipts, Target, Suspendable):
    """Weighted and header routing, instances, logs and metrics, independent of how instances run."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)
    counted_by: ClassVar[str] = "Envoy"

    directory: Path | None = Field(
        default=None, description="directory of its files. Default: `targets/NAME` in Headway's home directory"
    )
    host: str = Field(default=LOOPBACK, description="address that the public ports listen on")
    trusted_proxies: list[str] = Field(
        default=LOCAL,
        description="addresses and networks of proxies in front of the public ports. Their `X-Forwarded-*` and "
        "`X-Request-Id` headers are kept, those of other clients are replaced. Default: this machine",
    )
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ip_network(network)  # raises ValueError, which names it
        return networks

    # --- implemented by the platform ---------------------------------------------------------------------------

    @abstractmethod
    def _statuses(self, app: str, names: Collection[str]) -> Mapping[str, InstanceStatus]:
        """Status of these instances, without those that the platform does not know."""

    @abstractmethod
    def _free_address(self, app: str, taken: Collection[Address]) -> Address:
        """An unused address for a new instance, not in `taken`."""

    def _new_identity(self) -> str:
        """Token with which the platform answers health checks of a new revision; empty: the instances answer."""
        return ""

    def _free_health_port(self, app: str) -> int | None:  # noqa: ARG002  # by default
        """Port where the platform answers the proxy's health checks of a new instance, if it does."""
        return None

    @abstractmethod
    def _start(self, name: str, instance: InstanceState, revision: Revision, spec: LaunchSpec) -> None:
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
                as_instance(
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
            self._proxies.choose_ports(app, state, spec)
            known = state.specs.get(revision.id)
            identity = known.identity if known else self._new_identity()
            state.specs[revision.id] = RevisionState.of(revision, spec, identity)
            instances = self._wanted_instances(state, revision, spec)
            # An instance that was stopping runs again: a later stop of the others must not include it.
            state.stopping = [name for name in state.stopping if name not in instances]
        # Envoy must know even an instance that cannot be started, or retiring it would wait for Envoy in vain.
        self._proxies.write_clusters(app, self._read(app))
        for name, instance in instances.items():
            self._start(name, instance, revision, spec)
        self._running_edge(app)

    def ready(self, revision: Revision) -> InstanceReadiness:
        app = revision.app
        state = self._read(app)
        launched = state.of(revision.id)
        instances = self._check(app, state, revision.id)
        if all(instance.ready for instance in instances):  # Envoy, which sends the requests, must see them too
            seen = self._healthy_in_envoy(revision)
            instances = [one for one in instances if one.address in seen]
        statuses = self._statuses(app, list(launched))
        ready = {instance.name for instance in instances if instance.ready}
        reasons = ((name, one.failed or (one.crashed if name not in ready else None)) for name, one in statuses.items())
        failed = next(((name, reason) for name, reason in reasons if reason), None)
        return InstanceReadiness(
            wanted=len(launched),
            ready=len(ready),
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
            edge.set_traffic(traffic, state.http())
            state.add_carried([revision for revision, weight in traffic.weights.items() if weight == WHOLE])
        self._keep_running([name for revision in serving for name in state.of(revision)])

    def measure(self, app: str) -> Measurements:
        state = self._read(app)
        if not state.port:
            return Measurements(at=datetime.now(UTC), counts={})
        measured = self._proxies.edge(app).measure(list(state.instances))
        return measured.model_copy(update={"run": self._proxies.run(app)})

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

    def stop_idle(self, app: str) -> None:
        if not self._read(app).instances:
            self._supervisor.stop(f"{app}-edge")

    def forget(self, app: str) -> None:
        with self._writing(app) as state:
            if state.instances:
                raise TargetError(f"{app}: {', '.join(state.instances)} runs still", "retire it first")
            ports = {state.port, state.preview_port} - {None}
        self._stop(app)
        if ports:
            self._proxies.stop(app)
        with self._writing(app) as state:
            state.forget()
            for directory in ("envoy", "logs"):
                directories.remove(self._directory(app) / directory)
        _ports.release_unused(self._directory(app), ())

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
        edge = self._proxies.edge(app)
        listened_again = edge.answers and not edge.listens and edge.listen_again()
        return listened_again or not was_running

    def unreachable(self, app: str) -> Refusal | None:
        state, edge = self._read(app), self._proxies.edge(app)
        if not state.instances:
            return None
        try:
            traffic, listens = edge.traffic, edge.listens
        except TargetError as error:
            return Refusal(error.what)
        url = self._url(state.port)
        if url and not listens:  # Envoy has no routes then either
            owner = ports_in_use.owner(state.port) if state.port else ""
            return Refusal(f"{url} is not listened on: the port is taken by {owner}")
        live = [revision for revision, weight in traffic.weights.items() if weight and revision in state.specs]
        if not live or not url:
            return None
        return public_refusal(url, state.specs[live[0]].health.path, live)

    def suspend(self) -> None:
        self._supervisor.shut_down()

    # --- files and state ---------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        name = self._block_document_name or "default"
        return (self.directory or paths.home() / "targets" / name).absolute()

    def _directory(self, app: str) -> Path:
        return self._proxies.directory(app)

    @property
    def _proxies(self) -> Proxies:
        return Proxies(self._home, self.host, self.trusted_proxies)

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self._home)

    def _read(self, app: str) -> AppState:
        return AppState.read(self._directory(app))

    @contextlib.contextmanager
    def _app(self, app: str) -> Iterator[AppState]:
        """The state, for one process at a time; it is written when the block ends without an error."""
        directory = self._directory(app)
        make_directories(directory)
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
        app = revision.app
        instances = state.instances.setdefault(revision.id, {})
        identified = bool(state.specs[revision.id].identity)
        stopped = [(name, address) for name, address in self._stopped(revision).items() if name not in instances]
        while len(instances) < spec.instances:
            if stopped:
                name, address = stopped.pop()
            else:
                name = f"{app}-{revision.id}-{secrets.token_hex(2)}"
                address = self._free_address(app, state.addresses())
            instances[name] = InstanceState.at(address, self._free_health_port(app) if identified else None)
        statuses = self._statuses(app, list(instances))
        for name, instance in instances.items():
            instance.draining = False  # a draining instance is as good as a new one, and warm
            if statuses.get(name, InstanceStatus()).failed:  # its address may be the cause
                instance.host, instance.port = self._free_address(app, state.addresses())
                if identified:
                    instance.health_port = self._free_health_port(app)
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

    def _check(self, app: str, state: AppState, revision: str) -> list[Instance]:
        """Health check of every instance that does not drain."""
        checked = {name: one.address for name, one in state.of(revision).items() if not one.draining}
        return (
            check_all(checked, self._statuses(app, list(checked)), state.specs[revision], revision) if checked else []
        )

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
                edge.set_traffic(edge.traffic.without(name), state.http())
                self._proxies.write_clusters(app, state)
        return instances

    def _stop(self, app: str) -> None:
        """End the stopping instances. Without the lock: it takes as long as the app's grace."""
        stopping = self._read(app).stopping
        self._end(app, stopping)
        with self._app(app) as state:
            state.stopping = [name for name in state.stopping if name not in stopping]
            _ports.release_unused(self._directory(app), state.ports())

    def _await_one_ready(self, app: str, revision: str) -> int:
        """Number of ready instances. Waits for an instance that has just crashed and is being restarted."""
        end = time.monotonic() + RESTART
        while True:
            state = self._read(app)
            if ready := sum(one.ready for one in self._check(app, state, revision)):
                return ready
            if not state.of(revision) or time.monotonic() >= end:
                raise TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")
            time.sleep(POLL)

    def _healthy_in_envoy(self, revision: Revision) -> set[str]:
        """Addresses of the instances that Envoy sends requests to; none while Envoy restarts."""
        try:
            healthy = self._proxies.edge(revision.app).healthy()
        except TargetError:
            return set()
        return {address_text(address) for name, address in healthy if name == revision.id}

    def _shortage(self, app: str) -> Refusal | None:
        """The limit of this machine that a launch would exceed."""
        lacking = machine_limits.shortage(self._home, self.host)
        if lacking is None and self._proxies.edge(app).reads_files:
            lacking = machine_limits.inotify_shortage()
        return lacking

    def _running_edge(self, app: str) -> Edge:
        return self._proxies.running(app, self._read(app))
