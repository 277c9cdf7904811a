"""Probes and resources of a container, from headway.yaml. Pure functions."""

from __future__ import annotations

import math
from typing import Any

from headway.domain.revision import Health, ProbeSettings

__all__ = ["DEFAULT_CONTAINER", "PAUSE", "PORT_NAME", "PRE_STOP", "probes", "quantity", "resources"]

Object = dict[str, Any]
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"  # annotation of a pod: the main container
PORT_NAME = "http"  # name of the container's port, which Services refer to
PAUSE = 5  # seconds that a terminating pod keeps serving, until every node has updated its endpoints
PRE_STOP: Object = {"sleep": {"seconds": PAUSE}}


def probes(health: Health) -> Object:
    """Startup, readiness and liveness probes, by their name in a container."""
    startup = health.startup_probe
    failures = math.ceil(health.startup / startup.period)
    return {
        "startupProbe": _probe(health, startup.model_copy(update={"failures": failures})),
        "readinessProbe": _probe(health, health.readiness_probe),
        "livenessProbe": _probe(health, health.liveness_probe),
    }


def resources(requested_cpu: float, memory: int, cpu: float | None) -> Object:
    """Requests and limits; without `cpu` there is no limit on it, only the request. In cores and bytes."""
    size, cores = quantity(memory), f"{round(1000 * (cpu or requested_cpu))}m"
    return {
        "requests": {"cpu": cores, "memory": size},
        "limits": {"memory": size} | ({"cpu": cores} if cpu else {}),
    }


def quantity(size: int) -> str:
    """Bytes as Kubernetes writes them: `256Mi`, or the plain number."""
    return f"{size // 2**20}Mi" if size % 2**20 == 0 else str(size)


def _probe(health: Health, probing: ProbeSettings) -> Object:
    return {
        "httpGet": {"path": health.path, "port": PORT_NAME, "scheme": "HTTP"},
        "initialDelaySeconds": round(probing.delay),
        "periodSeconds": max(1, round(probing.period)),
        "timeoutSeconds": max(1, math.ceil(health.timeout)),
        "failureThreshold": probing.failures,
        "successThreshold": 1,
    }
