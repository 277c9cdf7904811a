"""Configuration of the door's Envoy: what it listens on, and where it sends a request.

A request to Prefect passes when Headway's web service authorises it (Envoy's ext_authz filter); Envoy then adds the
credential of Prefect's server. All other requests go to the web service, which authenticates them itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from headway.domain.base import Frozen
from headway.ledger.prefect_requests import CREATOR

__all__ = ["AUTHORIZE", "CLIENT", "MARK", "PREFECT", "Door", "Tls", "configuration"]

PREFECT = "/prefect"  # base path of Prefect's UI and API
AUTHORIZE = "/authorize"  # base path at which the web service authorises requests to Prefect
CLIENT = "x-headway-client"  # header with the client's address: the web service is reached by a Unix socket
MARK = "x-headway-door"  # header of a request that came through the door to Prefect

HEAD = "10s"  # for the head of a request to arrive
IDLE = "300s"  # after which an idle connection is closed
STREAM_IDLE = "3600s"  # for Prefect's event streams, which are quiet while nothing happens
ANSWER = "75s"  # for an answer: Prefect's server handles a request again for 20 s while its database is busy
AUTHORIZATION = "5s"
UPSTREAM_IDLE = "3s"  # uvicorn closes an idle connection after 5 s: a request on it at that moment would be lost
RESTART = {
    # Nothing of these requests has reached the service: it restarts, and is back within seconds.
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 10,
    "retry_back_off": {"base_interval": "0.25s", "max_interval": "2s"},
}
HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
FRAMES = "frame-ancestors 'none'"

HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3"
XFF = "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"
MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


class Tls(Frozen):
    """Files of a certificate with its chain, and of its key. Envoy reads them again when their folder changes."""

    certificate: Path
    key: Path


class Door(Frozen):
    """Where the door listens, and what is behind it."""

    host: str
    port: int
    web: Path = Field(description="Unix socket of the web service")
    admin: Path = Field(description="Unix socket of Envoy's admin interface, for this user only")
    secrets: Path = Field(description="file in which Envoy finds the certificate")
    prefect: tuple[str, int] | None = Field(description="address of our Prefect server; None when it is another's")
    authorization: str = Field(default="", description="header that our Prefect server asks for")
    tls: Tls | None = None
    trusted: tuple[str, ...] = Field(default=(), description="networks of reverse proxies: X-Forwarded-For is used")


def configuration(door: Door) -> dict[str, Any]:
    """Envoy's bootstrap configuration. It has the credential of Prefect's server: its file is for this user only."""
    clusters = [_cluster("web", {"pipe": {"path": str(door.web)}})]
    if door.prefect:
        clusters.append(_cluster("prefect", _address(*door.prefect)))
    return {
        "node": {"id": "door", "cluster": "headway"},
        "admin": {"address": {"pipe": {"path": str(door.admin), "mode": 0o600}}},
        "static_resources": {"listeners": [_listener(door)], "clusters": clusters},
    }


def certificate(tls: Tls) -> dict[str, Any]:
    """Content of the file `Door.secrets`: the certificate as a resource, which Envoy reloads."""
    return {
        "resources": [
            {
                "@type": f"{TLS}.Secret",
                "name": "certificate",
                "tls_certificate": {
                    "certificate_chain": {"filename": str(tls.certificate)},
                    "private_key": {"filename": str(tls.key)},
                    "watched_directory": {"path": str(tls.certificate.parent)},
                },
            }
        ]
    }


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "circuit_breakers": {"thresholds": [{"max_connections": 1000, "max_pending_requests": 1000}]},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(door: Door) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": _connections(door)}]}
    if door.tls:
        source = {"path_config_source": {"path": str(door.secrets)}, "resource_api_version": "V3"}
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{TLS}.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [{"name": "certificate", "sds_config": source}],
                },
            },
        }
    return {"name": "door", "address": _address(door.host, door.port), "filter_chains": [chain]}


def _connections(door: Door) -> dict[str, Any]:
    """The HTTP connection manager. Paths are normalised first: what is authorised is what Prefect's server gets."""
    return {
        "@type": HTTP,
        "stat_prefix": "door",
        "server_header_transformation": "PASS_THROUGH",
        "common_http_protocol_options": {"idle_timeout": IDLE, "headers_with_underscores_action": "REJECT_REQUEST"},
        "request_headers_timeout": HEAD,
        "stream_idle_timeout": ANSWER,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": False,
        "original_ip_detection_extensions": [
            {
                "name": "xff",
                "typed_config": {
                    "@type": XFF,
                    "xff_trusted_cidrs": {"cidrs": [_network(network) for network in door.trusted]},
                },
            }
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            _filter(
                "mutation",
                MUTATION,
                mutations={"request_mutations": [*map(_remove, (MARK, *CREATOR)), _client_header()]},
            ),
            _filter("authorize", f"{EXT_AUTHZ}.ExtAuthz", **_ext_authz()),
            _filter("router", ROUTER, suppress_envoy_headers=True),
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": _routes(door),
                    "response_headers_to_add": [_set(name, value) for name, value in HEADERS.items()],
                }
            ]
        },
    }


def _network(network: str) -> dict[str, Any]:
    prefix, _, length = network.partition("/")
    return {"address_prefix": prefix, "prefix_len": int(length)}


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind, **settings}}


def _remove(name: str) -> dict[str, Any]:
    return {"remove": name}


def _client_header() -> dict[str, Any]:
    return {"append": _set(CLIENT, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")}


def _set(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _ext_authz() -> dict[str, Any]:
    """The web service sees method, path and these headers of a request, and answers 200, or what the client gets."""
    seen = ("cookie", "origin", "accept", "sec-fetch-site", "sec-fetch-mode", "upgrade", "x-forwarded-proto", CLIENT)
    return {
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": "ServiceUnavailable"},
        "allowed_headers": {"patterns": [{"exact": name, "ignore_case": True} for name in seen]},
        "http_service": {
            "server_uri": {"uri": "http://web", "cluster": "web", "timeout": AUTHORIZATION},
            "path_prefix": AUTHORIZE,
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": name} for name in CREATOR]}},
        },
    }


def _routes(door: Door) -> list[dict[str, Any]]:
    everybody = {"authorize": {"@type": f"{EXT_AUTHZ}.ExtAuthzPerRoute", "disabled": True}}
    web = {
        "match": {"prefix": "/"},
        "route": {"cluster": "web", "timeout": ANSWER, "retry_policy": RESTART},
        "typed_per_filter_config": everybody,
    }
    # Only the filter asks there. What it asks for is recorded as a request to Prefect.
    inside = {
        "match": {"path_separated_prefix": AUTHORIZE},
        "direct_response": {"status": 404},
        "typed_per_filter_config": everybody,
    }
    if door.prefect is None:
        return [inside, web]
    added = [_set("authorization", door.authorization), _set(MARK, "1")]
    to_prefect = {
        "request_headers_to_add": added,
        "request_headers_to_remove": ["cookie"],
        "response_headers_to_add": [_set("content-security-policy", FRAMES)],
    }
    served = {"cluster": "prefect", "timeout": ANSWER, "retry_policy": RESTART}
    api = served | {"prefix_rewrite": "/api/", "idle_timeout": STREAM_IDLE, "timeout": "0s"}
    return [
        {"match": {"prefix": f"{PREFECT}/api/"}, "route": api, **to_prefect},
        {"match": {"path_separated_prefix": PREFECT}, "route": served, **to_prefect},
        inside,
        web,
    ]
