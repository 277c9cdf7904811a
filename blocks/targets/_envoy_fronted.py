"""What targets have in common whose instances stand behind an Envoy on the worker's machine.

A directory an app: `HOME/apps/APP/` has its state and the files Envoy reads. Envoy is a program of one supervisord,
which outlives the flow, the worker and the shell. How instances are run is the platform's part: a few verbs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import httpx
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr

from blocks.envoy.proxy import Address, Edge, Endpoints
from headway.domain.errors import TargetError
from headway.domain.fencing import FencingTokens
from headway.domain.measurements import Measurements
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.domain.traffic import Capability, Instance, InstanceReadiness, Observation, Traffic
from headway.domain.version_check import unhealthy
from headway.system import directories, ports_in_use, tls
from headway.system import paths as places
from headway.system.atomic_files import locked, write_json
from headway.system.supervisor import Program, Supervisor

__all__ = ["LOOPBACK", "BehindEnvoy", "Standing"]

LOOPBACK = "127.0.0.1"
IN_FORCE = 10.0  # seconds that a route waits for an instance which is being started again
POLL = 0.05  # seconds
WHOLE = 100  # percent
LAST_WORDS = 3  # lines of an instance that is not ready
REMEMBERED = 100  # revisions that carried everything once
FIRST_PORT = 8100  # the public ports that are given out when headway.yaml names none


class Standing(NamedTuple):
    """How the platform sees an instance."""

    run: str | None = None
    """Another one each time it is started; None while it does not run."""
    given_up: str = ""
    """Why it will not run, however long one waits."""
    ailing: str = ""
    """Why it is not well, though it may answer its health path."""


class BehindEnvoy(Block, Target):
    """Weighted and header routing, instances, logs and metrics, on whatever runs the instances."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    directory: Path | None = Field(
        default=None, description="where it keeps everything; left out: targets/NAME in Headway's home"
    )
    host: str = Field(default=LOOPBACK, description="address that the public ports listen on")
    _tokens: FencingTokens = PrivateAttr(default_factory=FencingTokens)

    # --- the platform's part -----------------------------------------------------------------------------------

    @abstractmethod
    def _standing(self, app: str, names: Collection[str]) -> Mapping[str, Standing]:
        """Those of these instances that the platform knows."""

    @abstractmethod
    def _address(self, taken: Collection[Address]) -> Address:
        """Where a new instance will answer; none of these, and nobody else gets it."""

    @abstractmethod
    def _start(self, name: str, address: Address, revision: Revision, spec: LaunchSpec) -> None:
        """Have this instance running, there; one that runs is left alone, one that had been given up on is not."""

    @abstractmethod
    def _end(self, app: str, names: Collection[str]) -> None:
        """SIGTERM, the grace of their spec, SIGKILL; all at once. What does not run has ended already."""

    @abstractmethod
    def _said(self, app: str, name: str, lines: int) -> list[str]:
        """The last lines that an instance wrote."""

    def _kept(self, revision: Revision) -> Mapping[str, Address]:  # noqa: ARG002  # for platforms that keep nothing
        """Instances of an earlier time that stand still, to be started again."""
        return {}

    # --- the port ----------------------------------------------------------------------------------------------

    def claim(self, app: str, token: int) -> None:
        with self._app(app) as state:
            state["token"] = self._tokens.claim(app, token, state["token"])

    def observe(self, app: str) -> Observation:
        state = self._read(app)
        if not state["instances"]:
            return Observation(app=app, url=self._url(state["port"]), traffic=Traffic(), instances={})
        edge = self._running_edge(app)
        traffic, healthy = edge.traffic, edge.healthy()
        standing = self._standing(app, [name for ours in state["instances"].values() for name in ours])
        instances = {
            revision: tuple(
                _seen(name, _at(one), standing.get(name, Standing()), (revision, _at(one)) in healthy)
                for name, one in ours.items()
                if not one["draining"]
            )
            for revision, ours in state["instances"].items()
        }
        running = {revision: ours for revision, ours in instances.items() if ours}
        return Observation(
            app=app,
            url=self._url(state["port"]),
            preview_url=self._url(state["preview_port"]) if traffic.preview else None,
            traffic=traffic,
            instances=running,
        )

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if secret:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(secret)}", "resolve them first")
        app = revision.app
        with self._writing(app) as state:
            self._choose_ports(app, state, spec)
            state["specs"][revision.id] = self._remembered(revision, spec)
            ours = state["instances"].setdefault(revision.id, {})
            kept = [(name, at) for name, at in self._kept(revision).items() if name not in ours]
            while len(ours) < spec.instances:
                name, (host, port) = kept.pop() if kept else (_name(revision), self._address(_addresses(state)))
                ours[name] = {"host": host, "port": port, "draining": False}
            standing = self._standing(app, list(ours))
            for name, instance in ours.items():
                instance["draining"] = False  # one that was on its way out is as good as a new one, and warm
                if standing.get(name, Standing()).given_up:  # its address may be what it died of
                    instance["host"], instance["port"] = self._address(_addresses(state))
            # Called back while it was to be ended: whoever ends the others later must not end it.
            state["stopping"] = [name for name in state["stopping"] if name not in ours]
        self._write_clusters(app, self._read(app))  # Envoy has to know even what cannot be started: it is retired then
        for name, instance in ours.items():
            self._start(name, _at(instance), revision, spec)
        self._running_edge(app)

    def ready(self, revision: Revision) -> InstanceReadiness:
        app = revision.app
        state = self._read(app)
        ours = state["instances"].get(revision.id, {})
        instances = self._probe(app, state, revision.id)
        if all(instance.ready for instance in instances):  # then Envoy has to see it too: it is what sends requests
            seen = self._seen_by_envoy(revision)
            instances = [one for one in instances if one.address in seen]
        ready = sum(instance.ready for instance in instances)
        missing = "Envoy has not seen it yet"
        if ailing := next((one for one in instances if not one.ready), None):
            said = " | ".join(line.strip() for line in self._said(app, ailing.name, LAST_WORDS) if line.strip())
            missing = ailing.detail + (f"; {ailing.name} said: {said}" if said else "")
        given_up = [(name, one.given_up) for name, one in self._standing(app, list(ours)).items() if one.given_up]
        if given_up:
            name, why = given_up[0]
            missing = f"{name} {why}: {' | '.join(self._said(app, name, LAST_WORDS))}"
        return InstanceReadiness(wanted=len(ours), ready=ready, failed=bool(given_up), detail=missing)

    def route(self, app: str, traffic: Traffic) -> None:
        serving = [revision for revision, weight in traffic.weights.items() if weight]
        state = self._read(app)
        if not state["port"] and not serving:
            return  # nothing was ever launched: nothing is routed already
        ready = {revision: self._await_one_ready(app, revision) for revision in serving}
        edge = self._running_edge(app)
        edge.await_healthy(ready)
        with self._writing(app) as state:  # nobody has taken over while it was waited for
            edge.set_traffic(traffic, list(state["instances"]))
            whole = [revision for revision, weight in traffic.weights.items() if weight == WHOLE]
            state["carried"] = [*whole, *(one for one in state["carried"] if one not in whole)][:REMEMBERED]

    def measure(self, app: str) -> Measurements:
        state = self._read(app)
        if not state["port"]:
            return Measurements(at=datetime.now(UTC), counts={})
        measured = self._edge(app).measure(list(state["instances"]))
        pid = self._supervisor.pid(f"{app}-edge")
        return measured.model_copy(update={"run": str(pid) if pid else None})

    def drain(self, revision: Revision, deadline: float) -> bool:
        ours = self._read(revision.app)["instances"].get(revision.id, {})
        addresses = {_at(one) for one in ours.values()}
        return not addresses or self._running_edge(revision.app).drained(revision.id, addresses, deadline)

    def retire(self, revision: Revision, keep: int = 0, drain: float | None = None) -> None:
        app, name = revision.app, revision.id
        with self._writing(app) as state:
            ours = state["instances"].get(name, {})
            going = list(ours)[: max(0, len(ours) - keep)]
            if not going and not state["stopping"]:
                return
            edge = self._running_edge(app)
            weight = edge.traffic.weights.get(name)
            if not keep and weight:
                raise TargetError(
                    f"{app}: {name} gets {weight} % of the traffic and cannot be retired",
                    "route to another revision first",
                )
            for instance in going:
                ours[instance]["draining"] = True
            addresses = {_at(ours[instance]) for instance in going}
            spec = state["specs"].get(name, {})
        if going:
            edge.set_endpoints(name, _endpoints(ours))
            edge.drained(name, addresses, spec["drain"] if drain is None else drain)
        with self._writing(app) as state:
            ours = state["instances"].get(name, {})
            # A rollback may have called them back meanwhile: then they stay.
            going = [instance for instance in going if ours.get(instance, {}).get("draining")]
            for instance in going:
                del ours[instance]
            state["stopping"] += going  # remembered until they have: what goes wrong before is done again
            if not ours:
                state["instances"].pop(name, None)
                state["specs"].pop(name, None)
                edge.set_traffic(edge.traffic.without(name), list(state["instances"]))
                self._write_clusters(app, state)
        self._stop(app)
        if ours:
            edge.set_endpoints(name, _endpoints(ours))

    def forget(self, app: str) -> None:
        with self._writing(app) as state:
            if state["instances"]:
                raise TargetError(f"{app}: {', '.join(state['instances'])} runs still", "retire it first")
            ports = {state["port"], state["preview_port"]} - {None}
        self._stop(app)
        if ports:
            self._supervisor.stop(f"{app}-edge")
        with self._writing(app) as state:
            state |= _nothing() | {"token": state["token"]}  # by which an older writer is refused still
            for directory in ("envoy", "logs"):
                directories.remove(self._place(app) / directory)
        self._unreserve(app, ports)

    def logs(self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        names = [name for name in self._logged(app) if revision is None or revision in name]
        for name in names:
            for line in self._said(app, name, lines):
                yield f"{name}: {line}"
        if follow:
            yield from self._follow(app, names)

    @abstractmethod
    def _logged(self, app: str) -> list[str]:
        """Instances, gone ones too, whose logs are still there."""

    @abstractmethod
    def _follow(self, app: str, names: list[str]) -> Iterator[str]:
        """New lines of these instances, as they come."""

    def revive(self, app: str) -> bool:
        if not self._read(app)["instances"] or self._supervisor.running:
            return False
        self._supervisor.ensure()
        return True

    # --- places and state --------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        name = self._block_document_name or "default"
        return (self.directory or places.home() / "targets" / name).absolute()

    def _place(self, app: str) -> Path:
        return self._home / "apps" / app

    @property
    def _supervisor(self) -> Supervisor:
        return Supervisor(self._home)

    def _read(self, app: str) -> dict[str, Any]:
        state = _nothing()
        with contextlib.suppress(FileNotFoundError):
            state |= json.loads((self._place(app) / "state.json").read_text())
        return state

    def _make_places(self, app: str) -> None:
        for directory in ("envoy", "logs"):
            (self._place(app) / directory).mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def _app(self, app: str) -> Iterator[dict[str, Any]]:
        place = self._place(app)
        self._make_places(app)
        with locked(place / "lock"):
            state = self._read(app)
            yield state
            write_json(place / "state.json", state)

    @contextlib.contextmanager
    def _writing(self, app: str) -> Iterator[dict[str, Any]]:
        with self._app(app) as state:
            self._tokens.check(app, state["token"])
            yield state

    def _ports(self, app: str) -> tuple[int, int]:
        """The public one and that of the preview."""
        state = self._read(app)
        return state["port"], state["preview_port"]

    def _url(self, port: int | None) -> str | None:
        return f"http://{self.host}:{port}" if port else None

    # --- instances ---------------------------------------------------------------------------------------------

    def _remembered(self, revision: Revision, spec: LaunchSpec) -> dict[str, Any]:
        """What has to be known of a revision while it runs."""
        health = spec.health.model_dump()
        return {"sha": revision.sha, "health": health, "drain": spec.drain}

    def _identity(self, app: str, revision: Revision, spec: LaunchSpec, port: int) -> dict[str, str]:
        """What every instance is told of itself."""
        return {
            "PORT": str(port),
            "HEADWAY_APP": app,
            "HEADWAY_ENVIRONMENT": spec.environment,
            "HEADWAY_REVISION": revision.id,
            "HEADWAY_VERSION": revision.sha,
        }

    def _probe(self, app: str, state: dict[str, Any], revision: str) -> list[Instance]:
        """Ask every instance that is not on its way out, at the same time."""
        ours = state["instances"].get(revision, {})
        asked = {name: _at(one) for name, one in ours.items() if not one["draining"]}
        if not asked:
            return []
        spec = state["specs"][revision]
        versions = (spec["sha"], revision)
        standing = self._standing(app, list(asked))
        with (
            httpx.Client(
                timeout=spec["health"]["timeout"], trust_env=False, verify=tls.for_url("http://instance")
            ) as client,
            ThreadPoolExecutor(len(asked)) as pool,
        ):
            details = pool.map(
                lambda at: unhealthy(client, f"http://{at[0]}:{at[1]}{spec['health']['path']}", versions),
                asked.values(),
            )
            return [
                _seen(name, at, standing.get(name, Standing()), not detail, detail)
                for (name, at), detail in zip(asked.items(), details, strict=True)
            ]

    def _stop(self, app: str) -> None:
        """End what is to be ended. Not under the lock: it takes as long as the app's grace."""
        stopping = self._read(app)["stopping"]
        self._end(app, stopping)
        with self._app(app) as state:
            state["stopping"] = [name for name in state["stopping"] if name not in stopping]

    def _await_one_ready(self, app: str, revision: str) -> int:
        """How many are ready. One that died a moment ago is being started again: it is waited for, but not for ever."""
        end = time.monotonic() + IN_FORCE
        while True:
            state = self._read(app)
            if ready := sum(one.ready for one in self._probe(app, state, revision)):
                return ready
            if not state["instances"].get(revision) or time.monotonic() >= end:
                raise TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")
            time.sleep(POLL)

    def _seen_by_envoy(self, revision: Revision) -> set[str]:
        """Addresses of the instances that it sends requests to; none while it is being started again."""
        try:
            healthy = self._edge(revision.app).healthy()
        except TargetError:
            return set()
        return {_written(at) for one, at in healthy if one == revision.id}

    # --- Envoy -------------------------------------------------------------------------------------------------

    def _log(self, app: str, name: str) -> str:
        return str(self._place(app) / "logs" / f"{name}.log")

    def _edge(self, app: str) -> Edge:
        socket = self._supervisor.socket_directory / f"{app}.admin"
        return Edge(app, self._place(app) / "envoy", socket, Path(self._log(app, f"{app}-edge")))

    def _running_edge(self, app: str) -> Edge:
        """Envoy, running with the configuration it last had, and answering."""
        self._make_places(app)
        edge = self._edge(app)
        edge.prepare()
        if not edge.told:  # its files are lost, and with them who had the traffic
            state = self._read(app)
            edge.listen(self.host, *self._ports(app))
            self._write_clusters(app, state)
        if not self._supervisor.running or not edge.answers:
            ours = {"HEADWAY_SUPERVISED_BY": str(self._home)}
            name = f"{app}-edge"
            self._supervisor.start(
                Program(name=name, command=edge.command, env=ours, log=self._log(app, name), grace=5)
            )
            edge.await_start()
        return edge

    def _write_clusters(self, app: str, state: dict[str, Any]) -> None:
        specs = state["specs"]
        self._edge(app).set_clusters(
            {one: (specs[one]["health"]["path"], _endpoints(ours)) for one, ours in state["instances"].items()}
        )

    def _choose_ports(self, app: str, state: dict[str, Any], spec: LaunchSpec) -> None:
        """The ports of headway.yaml, or ones that are kept for the app. Raises TargetError when one is taken."""
        before = (state["port"], state["preview_port"])
        for name, wanted in (("port", spec.port), ("preview_port", spec.preview_port)):
            wanted = wanted or state[name]
            if wanted is not None and wanted == state[name]:
                continue
            if wanted is None:
                wanted = next(port for port in range(FIRST_PORT, 65536) if self._reserved(port, app, state))
            elif not ports_in_use.is_free(self.host, wanted):
                by = ports_in_use.owner(wanted)
                raise TargetError(
                    f"environments/{spec.environment}/{name}: {wanted} on {self.host} is taken by {by}",
                    "stop it, or choose another port",
                )
            state[name] = wanted
        if (state["port"], state["preview_port"]) != before:
            self._edge(app).listen(self.host, state["port"], state["preview_port"])

    def _reserved(self, port: int, app: str, state: dict[str, Any]) -> bool:
        """Whether the port is free and ours from now on, whatever else on this machine looks for one just now."""
        if port in (state["port"], state["preview_port"]):
            return False
        with _reservations() as place:
            reservation = place / str(port)
            if reservation.exists():
                owner = Path(reservation.read_text())
                if owner != self._place(app) and owner.exists() and _may_hold(owner, port):
                    return False
            if not ports_in_use.is_free(self.host, port):
                return False
            reservation.write_text(str(self._place(app)))
            return True

    def _unreserve(self, app: str, ports: Collection[int]) -> None:
        with _reservations() as place:
            for reservation in (place / str(port) for port in ports):
                if reservation.exists() and reservation.read_text() == str(self._place(app)):
                    reservation.unlink()


@contextlib.contextmanager
def _reservations() -> Iterator[Path]:
    """Where the ports of this machine that are given out are written down, for one process at a time."""
    place = Path(f"/tmp/headway-{os.getuid()}-ports")  # noqa: S108  # mode 0700
    place.mkdir(mode=0o700, exist_ok=True)
    with locked(place / "lock"):
        yield place


def _nothing() -> dict[str, Any]:
    """The state of an app that was never launched."""
    return {
        "token": 0,
        "port": None,
        "preview_port": None,
        "instances": {},
        "specs": {},
        "stopping": [],
        "carried": [],  # revisions that had all the traffic, the last one first
    }


def _name(revision: Revision) -> str:
    return f"{revision.app}-{revision.id}-{secrets.token_hex(2)}"


def _at(one: Mapping[str, Any]) -> Address:
    return one["host"], one["port"]


def _addresses(state: Mapping[str, Any]) -> set[Address]:
    return {_at(one) for ours in state["instances"].values() for one in ours.values()}


def _written(at: Address) -> str:
    return f"{at[0]}:{at[1]}"


def _seen(
    name: str, at: Address, standing: Standing, healthy: bool, detail: str = "Envoy sees it as unhealthy"
) -> Instance:
    why = standing.ailing or ("" if healthy else detail)
    return Instance(name=name, address=_written(at), ready=not why, detail=why, run=standing.run)


def _endpoints(ours: dict[str, Any]) -> Endpoints:
    return {_at(one): one["draining"] for one in ours.values()}


def _may_hold(place: Path, port: int) -> bool:
    """Whether the app there has the port, or has not entered yet which ports it has."""
    try:
        state = json.loads((place / "state.json").read_text())
    except FileNotFoundError:
        return True
    return {port, None} & {state["port"], state["preview_port"]} != set()
