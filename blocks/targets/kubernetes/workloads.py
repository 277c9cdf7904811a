"""Pods and Deployments of an app's revisions, read from the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import pod_status, render
from blocks.targets.kubernetes.api_client import DEPLOYMENT, POD, SECRET, Cluster, Object
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec, Revision
from headway.system.redaction import Masker

__all__ = ["deployments", "masker", "pods", "spec_of", "with_secrets"]


def pods(cluster: Cluster, app: str, *, ending: bool = False) -> dict[str, list[Object]]:
    """Pods of each revision, except terminating ones."""
    found: dict[str, list[Object]] = {}
    for pod in cluster.find(POD, names.selector(app=app)):
        if ending or not (pod_status.is_terminating(pod) or pod_status.is_finished(pod)):
            found.setdefault(pod["metadata"]["labels"][names.REVISION], []).append(pod)
    return found


def deployments(cluster: Cluster, app: str) -> list[Object]:
    """Deployments of the app's revisions. An app may have others."""
    found = cluster.find(DEPLOYMENT, names.selector(app=app))
    return [one for one in found if names.REVISION in one["metadata"]["labels"]]


def spec_of(deployment: Mapping[str, Any]) -> LaunchSpec:
    """The spec that a revision was launched with, without its secrets."""
    return LaunchSpec.model_validate_json(deployment["metadata"]["annotations"][names.SPEC])


def with_secrets(cluster: Cluster, revision: Revision, spec: LaunchSpec) -> LaunchSpec:
    """The spec with secret values from the cluster: those of an adopted revision are known only there."""
    lacking = [name for name in spec.secrets if name not in spec.env]
    if not lacking:
        return spec
    kept = render.decoded(cluster.get(SECRET, names.deployment(revision)) or {})
    if gone := [name for name in lacking if name not in kept]:
        raise TargetError(
            f"{spec.environment}: Secret {names.deployment(revision)} has no {', '.join(gone)} any more",
            "release that commit again: its secrets are looked up then",
        )
    return spec.model_copy(update={"env": spec.env | {name: kept[name] for name in lacking}})


def masker(cluster: Cluster, pod: Mapping[str, Any]) -> Masker:
    """Masks the secrets of the revision that this pod runs."""
    labels = pod["metadata"]["labels"]
    found = cluster.get(SECRET, names.of_revision(labels[names.APP], labels[names.REVISION])) or {}
    return Masker(render.decoded(found).values())
