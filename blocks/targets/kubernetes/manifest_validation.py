"""Validation of an app's own manifests. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import schemas
from blocks.targets.kubernetes.container_spec import PORT_NAME
from blocks.targets.kubernetes.manifests import main_container, released, replaced_images, repository
from headway.domain.revision import Manifest

__all__ = ["fault_lines", "outside_namespace"]

CLUSTER_WIDE = frozenset(
    {
        "APIService",
        "CSIDriver",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "GatewayClass",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "RuntimeClass",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    }
)
FIXED = ("Job", "Pod")  # cannot be changed once they exist


def fault_lines(app: str, image: str, manifests: Sequence[Manifest]) -> list[str]:
    """All validation errors, each beginning with file and document."""
    found = [f"{one.source}: {fault}" for one in manifests for fault in _object_faults(app, one.content)]
    found += _twice(manifests)
    found += _spread(manifests)
    chosen = released(app, manifests)
    if isinstance(chosen, str):
        found.append(chosen)
    elif not found:
        found += [f"{chosen.source}: {fault}" for fault in _deployment_faults(chosen.content, image)]
        found += _scaled_by_others(chosen.content, manifests)
    return found


def outside_namespace(namespace: str, manifests: Sequence[Manifest]) -> list[str]:
    """Errors of manifests with another namespace."""
    return [
        f"{one.source}: is in namespace {theirs}, and the target is in {namespace}"
        for one in manifests
        if (theirs := _metadata(one.content).get("namespace", namespace)) != namespace
    ]


def _object_faults(app: str, thing: Mapping[str, Any]) -> Iterator[str]:
    kind, name = thing["kind"], thing["metadata"]["name"]
    if why := schemas.unknown(thing):
        yield why
    if kind in CLUSTER_WIDE:
        yield f"{kind} {name} belongs to no namespace: whoever runs the cluster applies it"
    if kind in FIXED:
        yield f"{kind} {name} cannot be changed from one revision to the next: use a Deployment or a CronJob"
    if kind == "Secret" and (thing.get("data") or thing.get("stringData")):
        yield f"Secret {name} would be in the repository in clear: name it in headway.yaml, env, with !secret"
    if (kind, name) in (
        ("Service", app),
        ("Service", names.preview(app)),
        ("ConfigMap", names.state(app)),
        ("PodDisruptionBudget", app),
        ("HTTPRoute", app),
        ("HTTPRoute", names.preview(app)),
    ):
        yield f"{kind} {name} is Headway's own, which switches the traffic: leave it out, or call it something else"
    yield from schemas.faults(thing)


def _twice(manifests: Sequence[Manifest]) -> Iterator[str]:
    first: dict[tuple[object, object, object], Manifest] = {}
    for one in manifests:
        kind, name = one.content["kind"], _metadata(one.content)["name"]
        other = first.setdefault((one.content["apiVersion"], kind, name), one)
        if other is not one:
            yield f"{one.source}: {kind} {name} is in {other.source} already"


def _spread(manifests: Sequence[Manifest]) -> Iterator[str]:
    namespaces = [(one.source, place) for one in manifests if (place := _metadata(one.content).get("namespace"))]
    for source, place in namespaces:
        if place != namespaces[0][1]:
            yield f"{source}: is in namespace {place}, and {namespaces[0][0]} in {namespaces[0][1]}: a target has one"


def _deployment_faults(thing: Mapping[str, Any], image: str) -> Iterator[str]:
    template = (thing.get("spec") or {}).get("template") or {}
    pod = template.get("spec") or {}
    if not pod.get("containers"):
        yield "spec/template/spec/containers: there is none"
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if why := _unselected(thing["spec"]["selector"], labels):
        yield f"spec/selector: does not match its own pods: {why}"
    container = main_container(pod, replaced_images(pod, image))
    if repository(container) != image and len(pod["containers"]) > 1:
        there = ", ".join(one.get("image", "none") for one in pod["containers"])
        yield f"spec/template/spec/containers: none runs {image}, the image of build/image; there is {there}"
        return
    ports = container.get("ports") or []
    if not any(port.get("name") == PORT_NAME for port in ports) and not (len(ports) == 1 and "name" not in ports[0]):
        yield (
            f"spec/template/spec/containers: {container['name']} has no port that is called {PORT_NAME}: "
            "it is the one that traffic goes to"
        )


def _unselected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Part of a selector that these labels do not match; empty if they match."""
    for label, value in (selector.get("matchLabels") or {}).items():
        if labels.get(label) != value:
            return f"{label} is {labels.get(label, 'not there')}, not {value}"
    for wanted in selector.get("matchExpressions") or []:
        label, operator, values = wanted["key"], wanted["operator"], wanted.get("values") or []
        fits = {
            "In": labels.get(label) in values,
            "NotIn": labels.get(label) not in values,
            "Exists": label in labels,
            "DoesNotExist": label not in labels,
        }.get(operator, False)
        if not fits:
            return f"{label} {operator} {', '.join(values)}".rstrip()
    return ""


def _scaled_by_others(deployment: Mapping[str, Any], manifests: Iterable[Manifest]) -> Iterator[str]:
    """Errors of autoscalers for the released Deployment: each revision has its own Deployment."""
    for one in manifests:
        spec = one.content.get("spec")
        scaled = spec.get("scaleTargetRef") if isinstance(spec, dict) else None
        if isinstance(scaled, dict) and (scaled.get("kind", "Deployment"), scaled.get("name")) == (
            "Deployment",
            deployment["metadata"]["name"],
        ):
            yield (
                f"{one.source}: spec/scaleTargetRef: {deployment['metadata']['name']} is released, a Deployment a "
                "revision: how many pods it has is said by `instances` in headway.yaml"
            )


def _metadata(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = thing["metadata"]
    return metadata
