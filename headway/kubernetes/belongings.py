"""The objects beside the Deployments: an app's own manifests, applied under their own names, and pruned.

What was ever applied is kept in the app's state, as (apiVersion, kind, name): nothing else can say which kinds to look
for. What has not Headway's labels is never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from headway.errors import TargetError
from headway.kubernetes import names
from headway.kubernetes.cluster import Cluster, Kind, kind_of

__all__ = ["Key", "key", "prune", "require_ours"]

Key = tuple[str, str, str]
OWNERS = (names.APP, names.ENVIRONMENT)
DATA = "PersistentVolumeClaim"  # is nobody's to delete


def key(thing: Mapping[str, Any]) -> Key:
    return (*kind_of(thing), thing["metadata"]["name"])


def require_ours(cluster: Cluster, things: Iterable[Mapping[str, Any]]) -> None:
    """Raises TargetError when one of them is there already and is somebody else's."""
    for thing in things:
        found = cluster.get(kind_of(thing), thing["metadata"]["name"])
        theirs, ours = ((one or thing)["metadata"].get("labels") or {} for one in (found, thing))
        if any(theirs.get(label) != ours[label] for label in OWNERS):
            kind, name = thing["kind"], thing["metadata"]["name"]
            raise TargetError(
                f"{cluster.who}: {kind} {name} is in namespace {cluster.namespace} already and not Headway's",
                f"call it something else, or hand it over: kubectl label -n {cluster.namespace} {kind.lower()} {name} "
                + " ".join(f"{label}={ours[label]}" for label in OWNERS),
            )


def prune(cluster: Cluster, known: Iterable[Key], wanted: Collection[Key], app: str) -> list[Key]:
    """Remove what is known and not wanted any more; what is known from then on."""
    kept = []
    for one in known:
        api_version, kind, name = one
        if one in wanted or kind == DATA:
            kept.append(one)
            continue
        found = cluster.get(Kind(api_version, kind), name) if cluster.knows(Kind(api_version, kind)) else None
        if found is not None and (found["metadata"].get("labels") or {}).get(names.APP) == app:
            cluster.delete(Kind(api_version, kind), name)
    return kept
