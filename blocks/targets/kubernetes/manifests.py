"""An app's own manifests, and the fields that Headway sets in them. Pure functions.

In the released Deployment these are the name, the image's digest, labels, env and the number of pods; and, if missing,
the fields that a rollout without dropped requests needs. In other objects these are labels, and the digest if they run
the same image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.container_spec import DEFAULT_CONTAINER, PAUSE, PORT_NAME, PRE_STOP, probes
from headway.domain.revision import LaunchSpec, Manifest, Revision

__all__ = [
    "deployment",
    "has_budget",
    "main_container",
    "own_objects",
    "pod_of",
    "port",
    "released",
    "replaced_images",
    "replicas",
    "repository",
    "runs_pods",
    "sources",
]

Object = dict[str, Any]
USUAL_GRACE = 30  # seconds, Kubernetes' default


def deployment(
    revision: Revision,
    spec: LaunchSpec,
    namespace: str,
    annotations: Mapping[str, str],
    limits: Mapping[str, Any],
    cpu: float,
) -> Object:
    """The released Deployment, changed to one of this revision.

    `limits` apply to a container without limits; `cpu`, in cores, is requested if an autoscaler needs a request and the
    container has none.
    """
    made: Object = deepcopy(_deployment_of(revision.app, spec.manifests))
    metadata, inside = made["metadata"], made["spec"]
    ours = names.labels(revision.app, spec.environment, revision.id)
    metadata |= {"name": names.deployment(revision), "namespace": namespace, "labels": _labelled(metadata, ours)}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    made.pop("status", None)
    inside.pop("replicas", None)  # set by the steps of a rollout
    inside.setdefault("revisionHistoryLimit", 0)  # each revision has its own Deployment
    chosen = {names.APP: revision.app, names.REVISION: revision.id}
    inside["selector"]["matchLabels"] = {**(inside["selector"].get("matchLabels") or {}), **chosen}
    template, pod = inside["template"].get("metadata") or {}, inside["template"]["spec"]
    inside["template"]["metadata"] = template
    template["labels"] = {**(template.get("labels") or {}), **_own(ours), names.POOL: names.OPEN}
    replaced = replaced_images(pod, spec.artifact.location)
    main = main_container(pod, replaced)
    template["annotations"] = {DEFAULT_CONTAINER: main["name"], **(template.get("annotations") or {})}
    for container in _containers(pod):
        if container is main or repository(container) in replaced:
            _run_ours(container, revision, spec)
    _complete(pod, main, spec, limits)
    if spec.autoscale:
        _request(main, cpu)
    return made


def own_objects(app: str, spec: LaunchSpec, namespace: str) -> list[Object]:
    """All other objects, in the order of the files."""
    if not spec.manifests:
        return []
    chosen = _deployment_of(app, spec.manifests)
    replaced = replaced_images(chosen["spec"]["template"]["spec"], spec.artifact.location)
    made = []
    for one in spec.manifests:
        if one.content is chosen:
            continue
        thing: Object = deepcopy(one.content)
        metadata = thing["metadata"]
        metadata |= {"namespace": namespace, "labels": _labelled(metadata, names.labels(app, spec.environment))}
        for container in _containers(pod_of(thing) or {}):
            if repository(container) in replaced:
                container["image"] = spec.artifact.location
        made.append(thing)
    return made


def sources(revision: Revision, spec: LaunchSpec) -> dict[tuple[str, str, str], str]:
    """File and document of each object, by (apiVersion, kind, name as applied)."""
    found = {
        (str(one.content["apiVersion"]), str(one.content["kind"]), _name(one)): one.source for one in spec.manifests
    }
    chosen = released(revision.app, spec.manifests) if spec.manifests else None
    if isinstance(chosen, Manifest):
        found["apps/v1", "Deployment", names.deployment(revision)] = chosen.source
    return found


def replicas(app: str, manifests: Sequence[Manifest]) -> int:
    """`replicas` of the released Deployment."""
    return int(_deployment_of(app, manifests)["spec"].get("replicas") or 1)


def port(app: str, spec: LaunchSpec) -> int:
    """Port of the main container."""
    pod = _deployment_of(app, spec.manifests)["spec"]["template"]["spec"]
    return int(_port(main_container(pod, replaced_images(pod, spec.artifact.location)))["containerPort"])


def has_budget(manifests: Sequence[Manifest]) -> bool:
    """Whether they have a PodDisruptionBudget. With two for the same pod, it can never be evicted."""
    return any(one.content["kind"] == "PodDisruptionBudget" for one in manifests)


def runs_pods(thing: Mapping[str, Any]) -> bool:
    return pod_of(thing) is not None


def released(app: str, manifests: Sequence[Manifest]) -> Manifest | str:
    """The released Deployment: the only one, or that with the app's name; or else why there is none."""
    found = [one for one in manifests if (one.content["apiVersion"], one.content["kind"]) == ("apps/v1", "Deployment")]
    named = [one for one in found if _name(one) == app or len(found) == 1]
    if len(named) == 1:
        return named[0]
    if not found:
        where = manifests[0].source.partition("#")[0]
        return f"{where}: no Deployment: one of apps/v1 has to be there, it is what is released"
    there = ", ".join(f"{_name(one)} ({one.source})" for one in found)
    return f"{found[0].source}: which Deployment is released? There is {there}: call that one {app}"


def _deployment_of(app: str, manifests: Sequence[Manifest]) -> Object:
    chosen = released(app, manifests)
    assert isinstance(chosen, Manifest)  # they were validated when they were read
    return chosen.content


def _name(manifest: Manifest) -> str:
    thing: Object = manifest.content
    return str(thing["metadata"]["name"])


# --- containers ------------------------------------------------------------------------------------------------


def replaced_images(pod: Mapping[str, Any], built: str) -> set[str]:
    """Image repositories to replace by the built image: its own, and that of an only container."""
    containers = pod["containers"]
    only = {repository(containers[0])} if len(containers) == 1 else set()
    return ({repository({"image": built})} | only) - {""}


def main_container(pod: Mapping[str, Any], replaced: Collection[str]) -> Object:
    """The container that is probed and gets the traffic."""
    first: Object = pod["containers"][0]
    return next((one for one in pod["containers"] if repository(one) in replaced), first)


def repository(container: Mapping[str, Any]) -> str:
    """Image of a container without tag and digest."""
    image = str(container.get("image") or "").partition("@")[0]
    host, slash, last = image.rpartition("/")
    return f"{host}{slash}{last.partition(':')[0]}"


def _run_ours(container: Object, revision: Revision, spec: LaunchSpec) -> None:
    """Set the built image, and the env of headway.yaml from the revision's ConfigMap and Secret."""
    reference = {"name": names.deployment(revision)}
    container["image"] = spec.artifact.location
    if container.get("env"):
        container["env"] = [one for one in container["env"] if not _is_told(one["name"], spec)]
    container["envFrom"] = [
        *(container.get("envFrom") or []),
        {"configMapRef": reference},
        {"secretRef": reference},
    ]


def _is_told(variable: str, spec: LaunchSpec) -> bool:
    return variable in spec.env or variable == "PORT" or variable.startswith("HEADWAY_")


def _complete(pod: Object, main: Object, spec: LaunchSpec, limits: Mapping[str, Any]) -> None:
    """Set defaults that a rollout without dropped requests needs."""
    _port(main)["name"] = PORT_NAME
    for name, probe in probes(spec.health).items():
        main.setdefault(name, probe)
    lifecycle = main.get("lifecycle") or {}
    if "preStop" not in lifecycle:  # in addition to the app's grace time
        main["lifecycle"] = {**lifecycle, "preStop": PRE_STOP}
        pod["terminationGracePeriodSeconds"] = PAUSE + (pod.get("terminationGracePeriodSeconds") or USUAL_GRACE)
    if limits:
        main.setdefault("resources", dict(limits))


def _request(main: Object, cpu: float) -> None:
    resources = main.get("resources") or {}
    requests, most = resources.get("requests") or {}, resources.get("limits") or {}
    if "cpu" not in requests and "cpu" not in most:  # without a request, Kubernetes requests the limit
        main["resources"] = {**resources, "requests": {**requests, "cpu": f"{round(1000 * cpu)}m"}}


def _port(main: Mapping[str, Any]) -> Object:
    """The port for traffic: that with the usual name, or the only one."""
    first: Object = main["ports"][0]
    return next((port for port in main["ports"] if port.get("name") == PORT_NAME), first)


def _containers(pod: Mapping[str, Any]) -> list[Object]:
    return [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]


def pod_of(thing: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Pod template of an object that runs pods."""
    spec = thing.get("spec")
    if isinstance(spec, dict) and isinstance(job := spec.get("jobTemplate"), dict):
        spec = job.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    pod = template.get("spec") if isinstance(template, dict) else None
    return pod if isinstance(pod, dict) and isinstance(pod.get("containers"), list) else None


# --- labels ----------------------------------------------------------------------------------------------------


def _labelled(metadata: Mapping[str, Any], ours: Mapping[str, str]) -> dict[str, str]:
    """Merge labels: Headway's override the app's, which override the defaults."""
    return {**ours, **(metadata.get("labels") or {}), **_own(ours)}


def _own(labels: Mapping[str, str]) -> dict[str, str]:
    return {label: value for label, value in labels.items() if label.startswith(names.OURS)}
