"""Changes that a launch would make on a cluster, according to a dry run of the API server."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from ruamel.yaml import YAML

from blocks.targets.kubernetes import field_owners, labels, schemas
from blocks.targets.kubernetes.api_client import Cluster, kind_of
from blocks.targets.kubernetes.api_errors import FieldConflict
from blocks.targets.kubernetes.owned_objects import Key, conflict, key
from headway.domain.errors import TargetError
from headway.system.redaction import MASK

__all__ = ["in_words", "rehearsed"]

Object = dict[str, Any]
NOISE = ("managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink")
# Annotations that repeat other fields, or change with every release.
NOISY = (
    labels.SPEC,
    labels.REVISION_OF,
    labels.RELEASE,
    labels.ENDED,
    labels.TRAFFIC,
    "deployment.kubernetes.io/revision",
    "kubectl.kubernetes.io/last-applied-configuration",
)


def rehearsed(
    cluster: Cluster, shared: Sequence[Object], own: Sequence[Object], sources: Mapping[Key, str], *, conflicts: bool
) -> list[Object]:
    """Dry run: each of these objects as the cluster would store it. `own`: objects of the revision.

    Raises TargetError with all conflicts with foreign objects, and all refusals by the schemas of its version or by the
    cluster: one per line, with the object, its location if it is in `sources`, and the path. Fields of other
    managers count if `conflicts`.
    """
    version, found, things = cluster.version, list[Object](), (*shared, *own)
    faults = [
        f"{_called(thing, sources)}: {fault}"
        for thing in things
        for fault in (*schemas.faults(thing, version), *_unwelcome(cluster, thing))
    ]
    for thing in () if faults else things:
        try:
            found.append(cluster.apply(thing, dry_run=True, force=thing in own))
        except FieldConflict as error:
            faults += [f"{_called(thing, sources)}: {_resolved(cluster, thing, error)}"] if conflicts else []
        except TargetError as error:
            refusal = error.what.removeprefix(f"{cluster.who}: apply {thing['kind']} {thing['metadata']['name']}: ")
            faults.append(f"{_called(thing, sources)}: {refusal}")
    if faults:
        raise TargetError(
            "\n".join(f"{cluster.who}: {fault}" for fault in faults),
            f"nothing was sent; the cluster is Kubernetes {version}",
        )
    return found


def in_words(thing: Object | None) -> str:
    """An object as YAML, without what the cluster adds and without the values of secrets; empty for none."""
    if thing is None:
        return ""
    shown = deepcopy(thing)
    metadata = shown["metadata"]
    shown.pop("status", None)
    for noise in NOISE:
        metadata.pop(noise, None)
    annotations = {
        name: value for name, value in (metadata.pop("annotations", None) or {}).items() if name not in NOISY
    }
    if annotations:
        metadata["annotations"] = annotations
    if shown["kind"] == "Secret":
        shown |= {part: dict.fromkeys(shown[part], MASK) for part in ("data", "stringData") if shown.get(part)}
    if shown["kind"] == "Deployment" and labels.REVISION in (metadata.get("labels") or {}):
        shown["spec"].pop("replicas", None)  # set by the steps of a rollout
    if shown["kind"] == "Service" and labels.ENVIRONMENT in (metadata.get("labels") or {}):
        shown["spec"].pop("selector", None)  # likewise
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 1000
    text = io.StringIO()
    yaml.dump(shown, text)
    return text.getvalue()


def _unwelcome(cluster: Cluster, thing: Object) -> list[str]:
    namespaced = cluster.namespaced(kind_of(thing))
    if namespaced is None:
        return [f"the cluster has no such kind in {thing['apiVersion']}: is its definition (CRD) installed?"]
    if not namespaced:
        return ["belongs to no namespace: whoever runs the cluster applies it"]
    refusal = conflict(cluster, thing)
    return [refusal.what] if refusal else []


def _resolved(cluster: Cluster, thing: Object, conflict: FieldConflict) -> str:
    fields = ", ".join(f"{path} was set by {manager}" for manager, path in conflict.fields)
    command = field_owners.settled_by(cluster, thing, conflict.fields)
    return f"{fields}. For Headway's value: {command}"


def _called(thing: Object, sources: Mapping[Key, str]) -> str:
    name = f"{thing['kind']} {thing['metadata']['name']}"
    source = sources.get(key(thing))
    return f"{source}: {name}" if source else name
