"""Envoy's configuration as data, and its figures read back. Pure; filesystem xDS, as JSON.

One cluster a revision. What the defaults would do and these settings do not: notice a late backend after 60 s (here
0.2 s, a rollout waits for it), hold back updates for a second, retry three requests at once at most, forget a host's
requests in flight with the host, send traffic to instances known to be unhealthy when most are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headway.model import Counts, Traffic

__all__ = ["bootstrap", "cluster", "counts", "endpoints", "listener", "resources", "route_traffic", "routes"]

TYPE = "type.googleapis.com/envoy."
REVISION_HEADER = "x-headway-revision"
IDEMPOTENT = "GET|HEAD|OPTIONS|PUT|DELETE"
PER_TRY_TIMEOUT = "30s"


def bootstrap(directory: Path, socket: Path) -> dict[str, Any]:
    """What Envoy starts with: where its files are, and an admin socket only we can open."""
    return {
        "node": {"id": "edge", "cluster": "edge"},
        "stats_flush_interval": "1s",
        "admin": {"address": {"pipe": {"path": str(socket), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _source(directory / "lds.json"),
            "cds_config": _source(directory / "cds.json"),
        },
    }


def resources(version: str, *resources: Mapping[str, Any]) -> dict[str, Any]:
    """One xDS file."""
    return {"version_info": version, "resources": list(resources)}


def listener(directory: Path, host: str, port: int) -> dict[str, Any]:
    """The public port of the app."""
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "use_remote_address": True,
        "drain_timeout": "5s",
        "rds": {"route_config_name": "app", "config_source": _source(directory / "rds.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    return {
        "@type": f"{TYPE}config.listener.v3.Listener",
        "name": "edge",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "enable_reuse_port": False,  # with it a second Envoy on the port is no error: it gets every other request
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def cluster(directory: Path, revision: str, health_path: str) -> dict[str, Any]:
    """One revision."""
    return {
        "@type": f"{TYPE}config.cluster.v3.Cluster",
        "name": revision,
        "type": "EDS",
        "connect_timeout": "0.5s",
        "lb_policy": "ROUND_ROBIN",
        "eds_cluster_config": {"eds_config": _source(directory / f"eds-{revision}.json")},
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "update_merge_window": "0s"},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "unhealthy_interval": "0.2s",
                "no_traffic_interval": "0.2s",
                "no_traffic_healthy_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": health_path},
            }
        ],
        "outlier_detection": {
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 4096,
                    "max_pending_requests": 4096,
                    "max_requests": 4096,
                    "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 200},
                }
            ]
        },
    }


def endpoints(revision: str, addresses: Mapping[tuple[str, int], bool]) -> dict[str, Any]:
    """(host, port) -> whether it drains: such an endpoint finishes what it has and gets nothing new."""
    return {
        "@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": revision,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}},
                        **({"health_status": "DRAINING"} if drains else {}),
                    }
                    for (host, port), drains in addresses.items()
                ]
            }
        ],
    }


def routes(traffic: Traffic, known: Iterable[str]) -> dict[str, Any]:
    """All requests by weight, but for those that name a revision in a header. No traffic at all answers 503."""
    by_header = [
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": REVISION_HEADER, "string_match": {"exact": revision}}],
            },
            "route": {"cluster": revision, "timeout": "0s"},
            "response_headers_to_add": [_says(revision)],
        }
        for revision in known
    ]
    return {
        "@type": f"{TYPE}config.route.v3.RouteConfiguration",
        "name": "app",
        "virtual_hosts": [{"name": "app", "domains": ["*"], "routes": [*by_header, *_by_weight(traffic)]}],
    }


def _by_weight(traffic: Traffic) -> list[dict[str, Any]]:
    if not traffic.weights:
        sorry = {"status": 503, "body": {"inline_string": "nothing is live here\n"}}
        return [{"match": {"prefix": "/"}, "direct_response": sorry}]
    weighted = {
        "clusters": [
            {"name": revision, "weight": weight, "response_headers_to_add": [_says(revision)]}
            for revision, weight in traffic.weights.items()
            if weight
        ]
    }
    safe = "connect-failure,refused-stream,reset-before-request"
    methods = {"name": ":method", "string_match": {"safe_regex": {"regex": IDEMPOTENT}}}
    again = {
        "retry_on": f"{safe},reset,gateway-error",
        "num_retries": 3,
        "host_selection_retry_max_attempts": 10,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }
    return [
        {
            "match": {"prefix": "/", "headers": [methods]},
            "route": {
                "weighted_clusters": weighted,
                "timeout": "0s",
                "retry_policy": {**again, "per_try_timeout": PER_TRY_TIMEOUT},
            },
        },
        {
            "match": {"prefix": "/"},
            "route": {"weighted_clusters": weighted, "timeout": "0s", "retry_policy": {**again, "retry_on": safe}},
        },
    ]


def _says(revision: str) -> dict[str, Any]:
    return {"header": {"key": REVISION_HEADER, "value": revision}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def route_traffic(dump: Mapping[str, Any]) -> tuple[str, Traffic]:
    """The version and weights in `/config_dump?resource=dynamic_route_configs`; ("", nothing) before the first."""
    for dynamic in dump.get("configs", []):
        for route in dynamic["route_config"]["virtual_hosts"][0]["routes"]:
            if "weighted_clusters" in route.get("route", {}):
                weighted = route["route"]["weighted_clusters"]["clusters"]
                weights = {one["name"]: one["weight"] for one in weighted}
                return dynamic.get("version_info", ""), Traffic(weights=weights)
        return dynamic.get("version_info", ""), Traffic()
    return "", Traffic()


def counts(stats: Mapping[str, Any], revision: str, histogram: Mapping[str, float | None]) -> Counts:
    """A cluster's counters. Retries hide errors, so the tries that failed before count as well."""
    prefix = f"cluster.{revision}."

    def value(name: str) -> int:
        return int(stats.get(prefix + name, 0))

    return Counts(
        requests=value("upstream_rq_completed") + value("retry.upstream_rq_completed"),
        errors=value("upstream_rq_5xx") + value("retry.upstream_rq_5xx"),
        p50=histogram.get("p50"),
        p99=histogram.get("p99"),
    )


def _source(file: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
