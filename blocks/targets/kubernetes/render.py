"""Objects of a revision and of an app, for the API server. Pure functions."""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Mapping
from typing import Any

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import manifests
from blocks.targets.kubernetes.container_spec import (
    DEFAULT_CONTAINER,
    PAUSE,
    PORT_NAME,
    PRE_STOP,
    probes,
    resources,
)
from headway.domain.base import Frozen
from headway.domain.revision import LaunchSpec, Revision, SecretRef
from headway.system.redaction import MASK

__all__ = [
    "HTTP",
    "NOBODY",
    "PORT",
    "Object",
    "Rules",
    "app_objects",
    "autoscaler",
    "decoded",
    "metadata",
    "once",
    "redacted",
    "replicas",
    "revision_objects",
    "selected",
    "service",
    "service_frame",
    "service_traffic",
]

Object = dict[str, Any]
PORT = 8080  # PORT of a pod; each pod has its own address
HTTP = 80  # port of the Services
NOBODY = {names.REVISION: "none"}  # selects no pod


class Rules(Frozen):
    """Settings of the target that apply to all apps."""

    namespace: str
    cpu: float  # cores requested for an app without `cpu`
    memory: int  # memory limit, in bytes, of an app without `memory`
    read_only: bool
    capabilities: tuple[str, ...]  # Linux capabilities that an app keeps
    pull_secret: str | None
    service_account: str | None


def revision_objects(revision: Revision, spec: LaunchSpec, rules: Rules) -> list[Object]:
    """ConfigMap, Secret and Deployment of a revision, in the order in which they must be applied."""
    secret = {name: value for name, value in spec.env.items() if name in spec.secrets}
    plain = {name: str(value) for name, value in spec.env.items() if name not in spec.secrets}
    identity = {
        "PORT": str(manifests.port(revision.app, spec) if spec.manifests else PORT),
        "HEADWAY_APP": revision.app,
        "HEADWAY_ENVIRONMENT": spec.environment,
        "HEADWAY_REVISION": revision.id,
        "HEADWAY_VERSION": revision.sha,
    }
    encoded = {name: base64.b64encode(str(value).encode()).decode() for name, value in secret.items()}
    return [
        _object("v1", "ConfigMap", revision, spec, rules, data=plain | identity),
        _object("v1", "Secret", revision, spec, rules, type="Opaque", data=encoded),
        _deployment(revision, spec, rules),
    ]


def app_objects(app: str, spec: LaunchSpec, rules: Rules) -> list[Object]:
    """Objects for all revisions of an app: a PodDisruptionBudget, unless the app has its own.

    It allows one disruption at a time, if there are several pods.
    """
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(app, names.labels(app, spec.environment), rules),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": {names.APP: app}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
    most = spec.autoscale.max if spec.autoscale else spec.instances
    return [budget] if most > 1 and not manifests.has_budget(spec.manifests) else []


def service(
    name: str, app: str, environment: str, rules: Rules, wanted: Mapping[str, str] | None, traffic: str = ""
) -> Object:
    """A Service for the app's pods with these labels; None selects no pods."""
    made, chosen = service_frame(name, app, environment, rules), service_traffic(name, app, rules, wanted, traffic)
    return {
        **made,
        "metadata": made["metadata"] | {"annotations": chosen["metadata"]["annotations"]},
        "spec": made["spec"] | chosen["spec"],
    }


def service_frame(name: str, app: str, environment: str, rules: Rules) -> Object:
    """A Service without the fields that say which pods it leads to."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, names.labels(app, environment), rules),
        "spec": {
            "type": "ClusterIP",
            "ports": [{"name": "http", "port": HTTP, "targetPort": PORT_NAME, "protocol": "TCP"}],
        },
    }


def service_traffic(name: str, app: str, rules: Rules, wanted: Mapping[str, str] | None, traffic: str = "") -> Object:
    """The fields of a Service that say which pods it leads to; None: to none."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": rules.namespace, "annotations": {names.TRAFFIC: traffic}},
        "spec": {"selector": {names.APP: app, **(NOBODY if wanted is None else wanted)}},
    }


def selected(service: Mapping[str, Any] | None) -> str | None:
    """The revision that a Service selects."""
    revision = ((service or {}).get("spec", {}).get("selector") or {}).get(names.REVISION)
    return None if revision in (None, NOBODY[names.REVISION]) else str(revision)


def once(app: str, environment: str, deployment: Object, command: str, seconds: float, rules: Rules) -> Object:
    """A Pod that runs a command once, with the settings of this Deployment's pods but without PORT.

    It ends at its deadline, even if Headway has stopped in the meantime.
    """
    template = copy.deepcopy(deployment["spec"]["template"])
    named = template["metadata"].get("annotations", {}).get(DEFAULT_CONTAINER)
    main = next(
        (one for one in template["spec"]["containers"] if one["name"] == named), template["spec"]["containers"][0]
    )
    for key in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "ports", "args"):
        main.pop(key, None)
    main["command"] = ["/bin/sh", "-c", f"unset PORT\n{command}"]
    template["spec"].pop("topologySpreadConstraints", None)
    labels = {"app.kubernetes.io/managed-by": names.MANAGER, names.COMMAND: app, names.ENVIRONMENT: environment}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(names.command(app), labels, rules) | {"annotations": {DEFAULT_CONTAINER: main["name"]}},
        "spec": template["spec"]
        | {"containers": [main], "restartPolicy": "Never", "activeDeadlineSeconds": math.ceil(seconds)},
    }


def autoscaler(revision: Revision, spec: LaunchSpec, container: str, rules: Rules) -> Object:
    """HorizontalPodAutoscaler of a revision, by the CPU use of this container.

    `spec.autoscale` has the minimum and maximum. Other containers do not count.
    """
    scale = spec.autoscale
    assert scale is not None
    target = {"type": "Utilization", "averageUtilization": scale.cpu}
    made = _object("autoscaling/v2", "HorizontalPodAutoscaler", revision, spec, rules)
    made["spec"] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.deployment(revision)},
        "minReplicas": scale.min,
        "maxReplicas": scale.max,
        "metrics": [
            {
                "type": "ContainerResource",
                "containerResource": {"name": "cpu", "container": container, "target": target},
            }
        ],
    }
    return made


def replicas(name: str, rules: Rules, number: int) -> Object:
    """A Deployment with no field but `replicas`."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": rules.namespace},
        "spec": {"replicas": number},
    }


def _deployment(revision: Revision, spec: LaunchSpec, rules: Rules) -> Object:
    # The secrets of a spec are in the Secret object only.
    kept = spec.model_copy(
        update={"env": {name: value for name, value in spec.env.items() if name not in spec.secrets}}
    )
    record = {names.REVISION_OF: revision.model_dump_json(), names.SPEC: kept.model_dump_json()}
    if spec.manifests:
        limited = bool(spec.cpu or spec.memory)
        limits = resources(rules.cpu, spec.memory or rules.memory, spec.cpu) if limited else {}
        record[names.RELEASE] = spec.release
        return manifests.deployment(revision, spec, rules.namespace, record, limits, rules.cpu)
    labels = names.labels(revision.app, spec.environment, revision.id)
    made = _object("apps/v1", "Deployment", revision, spec, rules)
    made["metadata"]["annotations"] |= record
    made["spec"] = {
        "selector": {"matchLabels": {names.APP: revision.app, names.REVISION: revision.id}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": math.ceil(spec.health.startup) + 60,
        "revisionHistoryLimit": 0,  # each revision has its own Deployment
        "template": {
            "metadata": {
                "labels": labels | {names.POOL: names.OPEN},
                "annotations": {DEFAULT_CONTAINER: "app"},
            },
            "spec": _pod(revision, spec, rules),
        },
    }
    return made


def _pod(revision: Revision, spec: LaunchSpec, rules: Rules) -> Object:
    pod: Object = {
        "containers": [_container(revision, spec, rules)],
        "automountServiceAccountToken": rules.service_account is not None,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": PAUSE + math.ceil(spec.stop_grace),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {names.APP: revision.app, names.REVISION: revision.id}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if rules.pull_secret:
        pod["imagePullSecrets"] = [{"name": rules.pull_secret}]
    if rules.service_account:
        pod["serviceAccountName"] = rules.service_account
    return pod


def _container(revision: Revision, spec: LaunchSpec, rules: Rules) -> Object:
    reference = {"name": names.deployment(revision)}
    container: Object = {
        "name": "app",
        "image": spec.artifact.location,
        "imagePullPolicy": "IfNotPresent",  # it is addressed by its digest
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        "envFrom": [{"configMapRef": reference}, {"secretRef": reference}],
        "resources": resources(rules.cpu, spec.memory or rules.memory, spec.cpu),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": rules.read_only,
            "capabilities": {"drop": ["ALL"], **({"add": list(rules.capabilities)} if rules.capabilities else {})},
        },
        "lifecycle": {"preStop": PRE_STOP},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # the container's
        **probes(spec.health),
    }
    if spec.run:
        container["command"] = ["/bin/sh", "-c", spec.run]
    return container


def _object(
    api_version: str, kind: str, revision: Revision, spec: LaunchSpec, rules: Rules, **content: object
) -> Object:
    labels = names.labels(revision.app, spec.environment, revision.id)
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": metadata(names.deployment(revision), labels, rules)
        | {"annotations": {names.RELEASE: spec.release}},
        **content,
    }


def metadata(name: str, labels: Mapping[str, str], rules: Rules) -> Object:
    """Name, namespace and labels of an object."""
    return {"name": name, "namespace": rules.namespace, "labels": dict(labels)}


def redacted(spec: LaunchSpec) -> LaunchSpec:
    """The spec with a mask in place of each unknown secret value."""
    secret = [name for name, value in spec.env.items() if isinstance(value, SecretRef)]
    env = {**spec.env, **dict.fromkeys(secret, MASK)}
    return spec.model_copy(update={"env": env, "secrets": (*spec.secrets, *secret)})


def decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    """Decoded values of a Secret."""
    data = secret.get("data") or {}
    return {name: base64.b64decode(value).decode(errors="replace") for name, value in data.items()}
