"""Build Envoy's configuration (filesystem xDS, as JSON) and parse its statistics. Pure functions.

One cluster per revision. Envoy's defaults, which these settings replace, would notice a late backend after 60 s (here
0.2 s, as a rollout waits for it), delay updates by a second, retry at most three requests at once, forget a host's
requests in flight with the host, send traffic to instances known to be unhealthy when most are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headway.domain.measurements import Bucket, RequestCounts
from headway.domain.revision import REVISION_HEADER
from headway.domain.traffic import Traffic

__all__ = [
    "PREVIEW",
    "PUBLIC",
    "cluster",
    "counts",
    "edge_counts",
    "endpoints",
    "histograms",
    "listener",
    "preview",
    "resources",
    "route_traffic",
    "routes",
]

TYPE = "type.googleapis.com/envoy."
PUBLIC, PREVIEW = "edge", "preview"  # the two listeners; Envoy's statistics have their names
COUNTERS = (  # pattern of the statistics that `counts` and `edge_counts` read
    r"^cluster\..*\.upstream_(rq_(completed|5xx|time|total|active|retry|retry_success)"
    r"|rq_pending_(active|overflow|failure_eject)|cx_(protocol_error|none_healthy))$"
    rf"|^http\.{PUBLIC}\.downstream_rq_(completed|5xx|tx_reset|rx_reset|time)$"
)
PREVIEW_HEADER = "x-headway-preview"
SESSION_COOKIE = "headway-session"
SESSION = 24 * 3600  # seconds a user stays with a revision, at most
IDEMPOTENT = "GET|HEAD|OPTIONS|PUT|DELETE"
PER_TRY_TIMEOUT = "30s"


def resources(version: str, *resources: Mapping[str, Any]) -> dict[str, Any]:
    """One xDS file."""
    return {"version_info": version, "resources": list(resources)}


def listener(directory: Path, host: str, port: int, name: str = PUBLIC) -> dict[str, Any]:
    """Listener of the public port or of the preview port."""
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": True,
        "drain_timeout": "5s",
        "rds": {"route_config_name": name, "config_source": _source(directory / f"rds-{name}.json")},
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
        "name": name,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "enable_reuse_port": False,  # otherwise a second Envoy could bind the port and get half of the requests
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
    """Endpoints of a revision: (host, port) -> whether it drains. A draining one gets no new requests."""
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
    """Routes: by revision header or cookie, by header rule, else by weight. Without traffic the response is 503."""
    named = []
    for revision in known:
        # A cookie of the same name selects one revision.
        cookie = rf"(.*;\s*)?{REVISION_HEADER}={re.escape(revision)}\s*(;.*)?"
        named.append(_straight(revision, _header(REVISION_HEADER, exact=revision)))
        named.append(_straight(revision, _header("cookie", safe_regex={"regex": cookie})))
    if traffic.preview:
        named.append(_straight(traffic.preview, _header(PREVIEW_HEADER, exact="true")))
    named += [_straight(rule.revision, _header(rule.name, exact=rule.value)) for rule in traffic.headers]
    # Envoy ignores this field but returns it in its configuration dump, from which the active traffic is read.
    told = traffic.model_dump(mode="json", exclude={"weights"})
    weighted = [{**route, "metadata": {"filter_metadata": {"headway": told}}} for route in _by_weight(traffic)]
    return _table(PUBLIC, [*named, *weighted])


def preview(traffic: Traffic) -> dict[str, Any]:
    """Route of the preview port: one revision, or 503."""
    return _table(PREVIEW, [_straight(traffic.preview)] if traffic.preview else [_nothing("no preview here")])


def _table(name: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": f"{TYPE}config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": [{"name": "app", "domains": ["*"], "routes": routes}],
    }


def _header(name: str, **match: object) -> dict[str, Any]:
    return {"name": name, "string_match": match}


def _straight(revision: str, *headers: dict[str, Any]) -> dict[str, Any]:
    return {
        "match": {"prefix": "/", "headers": list(headers)},
        "route": {"cluster": revision, "timeout": "0s"},
        "response_headers_to_add": [_says(revision)],
    }


def _nothing(words: str) -> dict[str, Any]:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": f"{words}\n"}}}


def _by_weight(traffic: Traffic) -> list[dict[str, Any]]:
    """Routes for requests that may be retried and for others, each with and without a session."""
    if not traffic.weights:
        return [_nothing("nothing is live here")]
    safe = "connect-failure,refused-stream,reset-before-request"
    again = {
        "num_retries": 3,
        "host_selection_retry_max_attempts": 10,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }
    twice = {**again, "retry_on": f"{safe},reset,gateway-error", "per_try_timeout": PER_TRY_TIMEOUT}
    idempotent = _header(":method", safe_regex={"regex": IDEMPOTENT})
    once = {**again, "retry_on": safe}
    kinds: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [([idempotent], twice), ([], once)]
    return [
        route
        for headers, policy in kinds
        for route in (_sessions(traffic, headers, policy) if traffic.sticky else [_weighted(traffic, headers, policy)])
    ]


def _weighted(traffic: Traffic, headers: list[dict[str, Any]], policy: dict[str, Any]) -> dict[str, Any]:
    clusters = [
        {"name": revision, "weight": weight, "response_headers_to_add": [_says(revision)]}
        for revision, weight in traffic.weights.items()
        if weight
    ]
    route = {"weighted_clusters": {"clusters": clusters}, "timeout": "0s", "retry_policy": policy}
    return {"match": {"prefix": "/", "headers": headers}, "route": route}


def _sessions(traffic: Traffic, headers: list[dict[str, Any]], policy: dict[str, Any]) -> list[dict[str, Any]]:
    """Routes by a hash of the session. A session starts as the id of its first request, so that request is included.

    A hash below the canary's weight stays below it when the weight rises: no user moves back to stable.
    """
    has_session = _header("cookie", contains=f"{SESSION_COOKIE}=")
    starts = {
        "key": "set-cookie",
        "value": f"{SESSION_COOKIE}=%REQ(X-REQUEST-ID)%; Path=/; Max-Age={SESSION}; HttpOnly; SameSite=Lax",
    }
    returning = _weighted(traffic, [*headers, has_session], policy)
    first = _weighted(traffic, headers, policy)
    returning["route"]["hash_policy"] = [{"cookie": {"name": SESSION_COOKIE}}]
    first["route"]["hash_policy"] = [{"header": {"header_name": "x-request-id"}}]
    first["response_headers_to_add"] = [{"header": starts, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]
    for route in (returning, first):
        route["route"]["weighted_clusters"]["use_hash_policy"] = True
    return [returning, first]


def _says(revision: str) -> dict[str, Any]:
    return {"header": {"key": REVISION_HEADER, "value": revision}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def route_traffic(dump: Mapping[str, Any]) -> tuple[str, Traffic]:
    """The version and traffic in `/config_dump?resource=dynamic_route_configs`; ("", nothing) before the first."""
    for dynamic in dump.get("configs", []):
        if dynamic["route_config"]["name"] == PUBLIC:
            last = dynamic["route_config"]["virtual_hosts"][0]["routes"][-1]
            weighted = last.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
            told = last.get("metadata", {}).get("filter_metadata", {}).get("headway", {})
            weights = {one["name"]: one["weight"] for one in weighted}
            return dynamic.get("version_info", ""), Traffic.model_validate({**told, "weights": weights})
    return "", Traffic()


def counts(stats: Mapping[str, int], latency: Mapping[str, tuple[Bucket, ...]], revision: str) -> RequestCounts:
    """A cluster's counters by request: a request with four attempts counts once, so that failures are independent.

    Requests cancelled by the client are started minus finished ones: Envoy has no counter for them.
    """

    def value(name: str) -> int:
        return stats.get(f"cluster.{revision}.upstream_{name}", 0)

    answered = value("rq_completed")
    failed = value("rq_5xx") + value("rq_retry_success") + value("cx_protocol_error")
    unreachable = value("rq_pending_failure_eject") + value("rq_pending_overflow") + value("cx_none_healthy")
    begun = value("rq_total") + unreachable - value("rq_retry")
    return RequestCounts(
        requests=answered,
        errors=min(failed, answered),
        unanswered=max(0, begun - answered - value("rq_active") - value("rq_pending_active")),
        latency=latency.get(f"cluster.{revision}.upstream_rq_time", ()),
    )


def edge_counts(stats: Mapping[str, int], latency: Mapping[str, tuple[Bucket, ...]]) -> RequestCounts:
    """The public port's counters: what users saw. An interrupted response is reset on both sides."""

    def value(name: str) -> int:
        return stats.get(f"http.{PUBLIC}.downstream_rq_{name}", 0)

    return RequestCounts(
        requests=value("completed"),
        errors=value("5xx") + value("tx_reset"),
        unanswered=max(0, value("rx_reset") - value("tx_reset")),
        latency=latency.get(f"http.{PUBLIC}.downstream_rq_time", ()),
    )


def histograms(stats: Mapping[str, Any]) -> dict[str, tuple[Bucket, ...]]:
    """Every histogram in `/stats?format=json&histogram_buckets=detailed`; Envoy counts in milliseconds."""
    found = {}
    for one in stats.get("stats", []):
        for histogram in one.get("histograms", {}).get("details", []):
            found[histogram["name"]] = tuple(_bucket(bucket) for bucket in histogram["totals"])
    return found


def _bucket(bucket: Mapping[str, Any]) -> Bucket:
    """Envoy rounds down to milliseconds: its 0 means up to one. Bounds are rounded, so that those of two
    neighbours are equal.
    """
    lower, width = bucket["lower_bound"], bucket["width"] or 1
    return Bucket(round(lower / 1000, 6), round((lower + width) / 1000, 6), bucket["count"])


def _source(file: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
