"""Build Envoy's configuration but its routes (filesystem xDS, as JSON). Pure functions.

One cluster a revision. The proxy adds nothing that an app did not ask for. These defaults of Envoy are changed:
it would notice a late backend after 60 s (here 0.2 s, a rollout waits for it), hold back updates for a second, forget
a host's requests in flight with the host, send traffic to unhealthy instances when most are, end a response after five
minutes without a byte, refuse HTTP/1.0, large headers and the 1,025th connection, replace the header `server`, and
obey the `x-envoy-*` headers of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

from headway.domain.revision import Health, Http

__all__ = [
    "HEALTH_HOST",
    "PREVIEW",
    "PUBLIC",
    "TYPE",
    "Address",
    "Backend",
    "Endpoint",
    "Endpoints",
    "cluster",
    "endpoints",
    "listener",
    "resources",
]

TYPE = "type.googleapis.com/envoy."
PUBLIC, PREVIEW = "edge", "preview"  # the two listeners; Envoy's statistics carry their names
CONNECT_TIMEOUT = "2s"  # one lost SYN is sent again after a second
# Seconds of a connection to an app, in addition to the timeout of its health check, to which this applies as well.
# Servers close theirs, 5 s is usual: a request on a connection that is just being closed would be lost.
CONNECTION_IDLE = 0.5
REQUEST_HEADERS_TIMEOUT = "60s"
HEADERS_KB = 1024
HEADERS_COUNT = 1000
MOST = 1_000_000  # connections and requests of a revision: the app has limits of its own
RETRIES_AT_ONCE = 200
HEALTH_HOST = "127.0.0.1"  # Host of a health check by default
FORWARDED = (  # request headers that only a trusted proxy may set
    "forwarded",
    "x-real-ip",
    "x-request-id",
)


Address = tuple[str, int]
"""IP address and port of an instance."""


class Endpoint(NamedTuple):
    """An instance as Envoy knows it. `health_port`: where it is asked for its health; None: at its own port."""

    drains: bool = False
    health_port: int | None = None


Endpoints = Mapping[Address, Endpoint]


class Backend(NamedTuple):
    """A revision as Envoy knows it. `identity`: what a health check has to answer; empty: anything."""

    health: Health
    http: Http
    identity: str
    endpoints: Endpoints


def resources(version: str, *resources: Mapping[str, Any]) -> dict[str, Any]:
    """One xDS file."""
    return {"version_info": version, "resources": list(resources)}


def listener(
    directory: Path, host: str, port: int, name: str = PUBLIC, *, trusted: Sequence[str] = ()
) -> dict[str, Any]:
    """Listener of the public port or of the preview port. `trusted`: networks whose X-Forwarded-* headers are kept."""
    chains = {}
    if trusted:
        match = {"source_prefix_ranges": [_network(one) for one in trusted]}
        chains["filter_chains"] = [
            {"name": "trusted", "filter_chain_match": match, **_manager(directory, name, trusted=True)}
        ]
    return {
        "@type": f"{TYPE}config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "enable_reuse_port": False,  # otherwise a second Envoy could bind the port and get half of the requests
        **chains,
        "default_filter_chain": {"name": "others", **_manager(directory, name, trusted=False)},
    }


def _network(text: str) -> dict[str, Any]:
    network = ip_network(text)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}


def _manager(directory: Path, name: str, *, trusted: bool) -> dict[str, Any]:
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        # The routes add the peer's address as x-forwarded-for where there is none. Envoy would append it, after the
        # address that a trusted proxy sent, and replace x-forwarded-proto.
        "use_remote_address": False,
        "early_header_mutation_extensions": [_removed_headers(trusted=trusted)],
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "0s",  # routes have the app's
        "request_headers_timeout": REQUEST_HEADERS_TIMEOUT,
        "drain_timeout": "5s",
        "max_request_headers_kb": HEADERS_KB,
        "common_http_protocol_options": {"max_headers_count": HEADERS_COUNT},
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost", **_http_1()},
        "proxy_100_continue": True,
        "rds": {"route_config_name": name, "config_source": _source(directory / f"rds-{name}.json")},
        "http_filters": [
            {  # routes put the limit of the request body here
                "name": "envoy.filters.http.filter_chain",
                "typed_config": {"@type": f"{TYPE}extensions.filters.http.filter_chain.v3.FilterChainConfig"},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{TYPE}extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}


def _removed_headers(*, trusted: bool) -> dict[str, Any]:
    """Users could set timeouts and retries with `x-envoy-*`, and another client address with `x-forwarded-*`."""
    mutations: list[dict[str, Any]] = [{"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}]
    if not trusted:
        mutations.append({"remove_on_match": {"key_matcher": {"prefix": "x-forwarded-"}}})
        mutations += [{"remove": name} for name in FORWARDED]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPE}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }


def _http_1() -> dict[str, Any]:
    """Names of headers keep their case, and trailers are passed on."""
    return {
        "enable_trailers": True,
        "header_key_format": {
            "stateful_formatter": {
                "name": "preserve_case",
                "typed_config": {
                    "@type": f"{TYPE}extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
                },
            }
        },
    }


def cluster(directory: Path, revision: str, backend: Backend) -> dict[str, Any]:
    """One revision."""
    return {
        "@type": f"{TYPE}config.cluster.v3.Cluster",
        "name": revision,
        "type": "EDS",
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "ROUND_ROBIN",
        "eds_cluster_config": {"eds_config": _source(directory / f"eds-{revision}.json")},
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": [_health_check(backend.health, backend.identity)],
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _protocol(backend.health, backend.http)
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MOST,
                    "max_pending_requests": MOST,
                    "max_requests": MOST,
                    "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": RETRIES_AT_ONCE},
                }
            ]
        },
    }


def _health_check(health: Health, identity: str) -> dict[str, Any]:
    check: dict[str, Any] = {"path": health.path, "host": health.host or HEALTH_HOST}
    timeout = health.timeout
    if identity:  # asked of the launcher, which has the path, the host and the timeout
        check = {"path": "/", "host": HEALTH_HOST, "receive": [{"text": identity.encode().hex()}]}
        timeout += CONNECTION_IDLE / 2
    return {
        "timeout": f"{timeout:g}s",
        "interval": "1s",
        "unhealthy_interval": "0.2s",
        "no_traffic_interval": "0.2s",
        "no_traffic_healthy_interval": "1s",
        "unhealthy_threshold": 1 if identity else 2,  # another program may have the port of a dead instance
        "healthy_threshold": 1,
        "http_health_check": check,
    }


def _protocol(health: Health, http: Http) -> dict[str, Any]:
    """How an app is spoken to. With h2c: by HTTP/2 when the client does, so that HTTP/1.1 and websockets work too."""
    spoken: dict[str, Any] = {"http_protocol_options": _http_1()}
    if http.h2c:
        spoken["http2_protocol_options"] = {}
    return {
        "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {
            "idle_timeout": f"{health.timeout + CONNECTION_IDLE:g}s",
            "max_headers_count": HEADERS_COUNT,
            "max_response_headers_kb": HEADERS_KB,
        },
        "use_downstream_protocol_config" if http.h2c else "explicit_http_config": spoken,
    }


def endpoints(revision: str, instances: Endpoints) -> dict[str, Any]:
    """Endpoints of a revision. A draining one gets no new requests."""
    return {
        "@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": revision,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {"socket_address": {"address": host, "port_value": port}},
                            **({"health_check_config": {"port_value": one.health_port}} if one.health_port else {}),
                        },
                        **({"health_status": "DRAINING"} if one.drains else {}),
                    }
                    for (host, port), one in instances.items()
                ]
            }
        ],
    }


def _source(file: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}
