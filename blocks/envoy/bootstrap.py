"""How an Envoy starts, and how it is served: the bootstrap configuration and the answers of the xDS server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["SERVER", "bootstrap", "file_name", "served"]

SERVER = "xds"  # name of the cluster with the xDS server


def bootstrap(app: str, server: Path, socket: Path) -> dict[str, Any]:
    """Bootstrap configuration: the socket of the xDS server, and an admin socket that only this user can open."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(server)}}}}
    return {
        "node": {"id": app, "cluster": "edge"},
        "stats_flush_interval": "1s",
        "admin": {"address": {"pipe": {"path": str(socket), "mode": 0o600}}},
        "static_resources": {
            "clusters": [
                {
                    "name": SERVER,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": SERVER, "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ]
        },
        "dynamic_resources": {"lds_config": _served_source(), "cds_config": _served_source()},
    }


def file_name(kind: str, names: Sequence[str]) -> str | None:
    """The file with these resources; None when there is no such kind. `kind` is the one in the path of a request."""
    match kind, names:
        case "listeners", _:
            return "lds.json"
        case "clusters", _:
            return "cds.json"
        case "routes", [name]:
            return f"rds-{name}.json"
        case "endpoints", [name]:
            return f"eds-{name}.json"
    return None


def served(content: Any) -> Any:
    """The content of a file as the xDS server sends it: its references to files are references to the server.

    The files themselves keep them: an Envoy that was started by a version before the server reads the files.
    """
    if isinstance(content, list):
        return [served(one) for one in content]
    if isinstance(content, dict):
        return _served_source() if "path_config_source" in content else {k: served(v) for k, v in content.items()}
    return content


def _served_source() -> dict[str, Any]:
    """By long polling: see blocks.envoy.xds_server. Without an answer, Envoy waits and keeps what it has."""
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [SERVER],
            "refresh_delay": "0.05s",
            "request_timeout": "60s",
        },
    }
