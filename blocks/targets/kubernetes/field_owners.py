"""Field managers of an object's fields, and what to do about those that are not Headway's."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import workloads
from blocks.targets.kubernetes.api_client import AUTOSCALER, SERVICE, Cluster, Object

__all__ = ["of", "remarks", "settled_by"]

OURS = {names.MANAGER, names.ROUTER, names.SCALER}
BUILT_IN = re.compile(r"^(v1|[a-z]+/.+|[a-z.]+\.k8s\.io/.+)$")  # kinds whose lists have keys to merge by


def of(thing: Mapping[str, Any], *path: str) -> set[str]:
    """Managers of this field."""
    found = set[str]()
    for entry in thing["metadata"].get("managedFields") or []:
        fields: Any = entry.get("fieldsV1") or {}
        for key in path:
            fields = fields.get(f"f:{key}") if isinstance(fields, Mapping) else None
        if fields is not None:
            found.add(str(entry["manager"]))
    return found


def remarks(cluster: Cluster, app: str) -> tuple[str, ...]:
    """Lines on fields that others have set and a rollout sets again, and on autoscalers of others."""
    found = []
    deployments = workloads.deployments(cluster, app)
    for one in deployments:
        by = of(one, "spec", "replicas") - OURS
        if by and not workloads.spec_of(one).autoscale:
            found.append(
                f"Deployment {one['metadata']['name']}: {one['spec'].get('replicas')} pods were set by "
                f"{', '.join(sorted(by))}: Headway sets their number again when it changes it"
            )
    if (service := cluster.get(SERVICE, app)) and (by := of(service, "spec", "selector") - OURS):
        found.append(f"Service {app}: its selector was set by {', '.join(sorted(by))}: Headway sets it again")
    return (*found, *_foreign_autoscalers(cluster, {one["metadata"]["name"] for one in deployments}))


def settled_by(cluster: Cluster, thing: Mapping[str, Any], fields: Collection[tuple[str, str]]) -> str:
    """Command that gives these fields of an object the values that Headway applies, so that nothing conflicts."""
    change: Object = {}
    for _, path in fields:
        _copy(thing, path.lstrip(".").partition("[")[0].split("."), change)
    kind, name = thing["kind"].lower(), thing["metadata"]["name"]
    merge = "" if BUILT_IN.match(thing["apiVersion"]) else "--type=merge "
    return f"kubectl -n {cluster.namespace} patch {kind} {name} {merge}-p {shlex.quote(json.dumps(change))}"


def _copy(thing: Any, path: list[str], change: Object) -> None:
    """Copy the value at a path. A key may contain dots, as those of labels do: the longest that fits is meant."""
    for end in range(len(path), 0, -1):
        key = ".".join(path[:end])
        if isinstance(thing, Mapping) and key in thing:
            if end == len(path) or not isinstance(thing[key], Mapping):
                change[key] = thing[key]
            else:
                _copy(thing[key], path[end:], change.setdefault(key, {}))
            return


def _foreign_autoscalers(cluster: Cluster, deployments: Collection[str]) -> list[str]:
    found = []
    for one in cluster.find(AUTOSCALER):
        name, scaled = one["metadata"]["name"], one["spec"]["scaleTargetRef"]["name"]
        if scaled in deployments and names.APP not in (one["metadata"].get("labels") or {}):
            found.append(
                f"HorizontalPodAutoscaler {name} scales {scaled} and is not Headway's: it does not follow to a new "
                "revision. Declare `instances: {min: ..., max: ...}` instead, and remove it: "
                f"kubectl -n {cluster.namespace} delete hpa {name}"
            )
    return found
