"""Objects of an app's own manifests besides Deployments: applied under their own names, and pruned.

Their keys (apiVersion, kind, name) are stored in the app's state, because the kinds are not known otherwise. An object
without Headway's labels is never changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.api_client import Cluster, Kind, kind_of
from headway.domain.errors import TargetError
from headway.domain.refusal import Refusal

__all__ = ["DATA", "Key", "conflict", "key", "ours", "prune", "require_ours"]

Key = tuple[str, str, str]
OWNERS = (names.APP, names.ENVIRONMENT)
DATA = "PersistentVolumeClaim"  # is never deleted


def key(thing: Mapping[str, Any]) -> Key:
    return (*kind_of(thing), thing["metadata"]["name"])


def conflict(cluster: Cluster, thing: Mapping[str, Any]) -> Refusal | None:
    """Return why this object must not be changed: one of this name exists, and is not Headway's."""
    kind, name, wanted = thing["kind"], thing["metadata"]["name"], thing["metadata"]["labels"]
    found = cluster.get(kind_of(thing), name)
    theirs = (found or thing)["metadata"].get("labels") or {}
    if all(theirs.get(label) == wanted[label] for label in OWNERS):
        return None
    labels = " ".join(f"{label}={wanted[label]}" for label in OWNERS)
    return Refusal(
        f"is in namespace {cluster.namespace} already and not Headway's: call it something else, or hand it over with "
        f"kubectl label -n {cluster.namespace} {kind.lower()} {name} {labels}"
    )


def require_ours(cluster: Cluster, environment: str, found: Mapping[str, Any]) -> None:
    """Raise TargetError when this existing object is of another environment, or not Headway's."""
    theirs = (found["metadata"].get("labels") or {}).get(names.ENVIRONMENT)
    if theirs != environment:
        whose = f"of environment {theirs}" if theirs else "not Headway's"
        what = f"the {found['kind']} {found['metadata']['name']} in namespace {cluster.namespace}"
        raise TargetError(
            f"environments/{environment}: {what} is {whose}",
            "give each environment a target with a namespace of its own",
        )


def prune(cluster: Cluster, known: Iterable[Key], wanted: Collection[Key], app: str) -> list[Key]:
    """Remove the known objects that are not wanted any more. Returns the keys that remain known."""
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
    """The object, if it exists and is the app's."""
    api_version, kind, name = one
    if cluster.namespaced(Kind(api_version, kind)) is None:
        return None  # its definition was removed, and the object with it
    found = cluster.get(Kind(api_version, kind), name)
    return found if found and (found["metadata"].get("labels") or {}).get(names.APP) == app else None
