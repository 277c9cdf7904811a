"""The objects beside the Deployments: an app's own manifests, applied under their own names, and pruned.

What was ever applied is kept in the app's state, as (apiVersion, kind, name): nothing else can say which kinds to look
for. What has not Headway's labels is never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.api_client import Cluster, Kind, kind_of
from headway.domain.errors import TargetError

__all__ = ["DATA", "Key", "foreign", "key", "ours", "prune", "require_ours"]

Key = tuple[str, str, str]
OWNERS = (names.APP, names.ENVIRONMENT)
DATA = "PersistentVolumeClaim"  # is nobody's to delete


def key(thing: Mapping[str, Any]) -> Key:
    return (*kind_of(thing), thing["metadata"]["name"])


def foreign(cluster: Cluster, thing: Mapping[str, Any]) -> str:
    """Why an object is not Headway's to change: one of this name is there already; empty when it may be."""
    kind, name, wanted = thing["kind"], thing["metadata"]["name"], thing["metadata"]["labels"]
    found = cluster.get(kind_of(thing), name)
    theirs = (found or thing)["metadata"].get("labels") or {}
    if all(theirs.get(label) == wanted[label] for label in OWNERS):
        return ""
    labels = " ".join(f"{label}={wanted[label]}" for label in OWNERS)
    return (
        f"is in namespace {cluster.namespace} already and not Headway's: call it something else, or hand it over with "
        f"kubectl label -n {cluster.namespace} {kind.lower()} {name} {labels}"
    )


def require_ours(cluster: Cluster, environment: str, found: Mapping[str, Any]) -> None:
    """Raises TargetError when this object, which is there, is of another environment or nobody's we know."""
    theirs = (found["metadata"].get("labels") or {}).get(names.ENVIRONMENT)
    if theirs != environment:
        whose = f"of environment {theirs}" if theirs else "not Headway's"
        what = f"the {found['kind']} {found['metadata']['name']} in namespace {cluster.namespace}"
        raise TargetError(
            f"environments/{environment}: {what} is {whose}",
            "give each environment a target with a namespace of its own",
        )


def prune(cluster: Cluster, known: Iterable[Key], wanted: Collection[Key], app: str) -> list[Key]:
    """Remove what is known and not wanted any more; what is known from then on."""
    kept = []
    for one in known:
        api_version, kind, name = one
        if one in wanted or kind == DATA:
            kept.append(one)
            continue
        if ours(cluster, one, app) is not None:
            cluster.delete(Kind(api_version, kind), name)
    return kept


def ours(cluster: Cluster, one: Key, app: str) -> dict[str, Any] | None:
    """The object, if it is there and the app's."""
    api_version, kind, name = one
    if cluster.namespaced(Kind(api_version, kind)) is None:
        return None  # its definition is gone, and took it along
    found = cluster.get(Kind(api_version, kind), name)
    return found if found and (found["metadata"].get("labels") or {}).get(names.APP) == app else None
