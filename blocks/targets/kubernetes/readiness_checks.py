"""Production readiness checks of the Kubernetes objects that Headway would apply, its own and the app's.

Pure functions. Other objects in the cluster are not checked: an Ingress or alert from elsewhere needs an attestation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blocks.targets.kubernetes import manifests, render
from headway.domain.readiness import Finding, failed, passed
from headway.domain.revision import LaunchSpec

__all__ = ["examine"]

Object = Mapping[str, Any]
# Placeholders for the operator's limits: no finding depends on their values.
_RULES = render.Rules(
    namespace="any",
    cpu=0.1,
    memory=2**28,
    read_only=True,
    capabilities=(),
    pull_secret=None,
    service_account=None,
)
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def examine(app: str, spec: LaunchSpec) -> dict[str, Finding]:
    """Checklist items that follow from the objects of this spec."""
    revision = spec.revision(app, "0" * 40)
    objects = [
        *manifests.own_objects(app, spec, _RULES.namespace),
        *render.app_objects(app, spec, _RULES),
        *render.revision_objects(revision, render.redacted(spec), _RULES),
    ]
    released = objects[-1]
    released["metadata"]["name"] = app  # the name without a revision
    findings = {
        "limits": _limits(objects),
        "scaling": _scaling(objects, spec),
        "probes": _probes(released),
        "tls": _tls(objects),
        "alerts": _alerts(objects),
        "metrics": _kept(objects, "ServiceMonitor", "PodMonitor"),
        "uptime": _kept(objects, "Probe"),
    }
    return {name: finding for name, finding in findings.items() if finding}


def _limits(objects: Sequence[Object]) -> Finding:
    """Check limits: memory must be limited; for CPU a request is enough."""
    loose = []
    number = 0
    for thing in objects:
        for container in _containers(thing):
            number += 1
            resources = container.get("resources") or {}
            limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
            missing = [] if "memory" in limits else ["no limit of memory"]
            missing += [] if "cpu" in {**limits, **requests} else ["no cpu"]
            if missing:
                loose.append(f"{thing['kind']} {_name(thing)}: {container['name']}: {' and '.join(missing)}")
    return failed("; ".join(loose)) if loose else passed(f"all {number} containers")


def _containers(thing: Object) -> Iterator[Object]:
    pod = manifests.pod_of(thing) or {}
    yield from (*(pod.get("initContainers") or ()), *(pod.get("containers") or ()))


def _scaling(objects: Sequence[Object], spec: LaunchSpec) -> Finding:
    scalers = [one["spec"] for one in objects if one["kind"] == "HorizontalPodAutoscaler"]
    fewest = spec.autoscale.min if spec.autoscale else spec.instances
    fewest = min((one.get("minReplicas", 1) for one in scalers), default=fewest)
    budget = any(one["kind"] == "PodDisruptionBudget" for one in objects)
    if fewest < 2:
        return failed("one pod")
    return passed(f"{fewest} pods") if budget else failed(f"{fewest} pods, and no PodDisruptionBudget")


def _probes(deployment: Object) -> Finding:
    """Check the probes of the main container. Headway adds those that the app's own manifests leave out."""
    asked = [one for one in _containers(deployment) if "readinessProbe" in one]
    missing = [probe for probe in _PROBES if not any(probe in one for one in asked)]
    return failed(f"no {', no '.join(missing)}") if missing else passed("startup, readiness and liveness")


def _tls(objects: Sequence[Object]) -> Finding | None:
    found = [_of_ingress(one) for one in objects if one["kind"] == "Ingress"]
    found += [_of_gateway(one) for one in objects if one["kind"] == "Gateway"]
    open_ = [one.evidence for one in found if not one.passes]
    if open_:
        return failed("; ".join(open_))
    return passed("; ".join(one.evidence for one in found)) if found else None


def _of_ingress(thing: Object) -> Finding:
    """Each host of an Ingress rule must be covered by its certificates, which may have wildcards."""
    spec = thing["spec"]
    certificates = spec.get("tls") or ()
    covered = {host for one in certificates for host in one.get("hosts") or ()}
    hosts = [one.get("host", "any host") for one in spec.get("rules") or ()] or ["any host"]
    plain = [host for host in hosts if not {host, f"*.{host.partition('.')[2]}"} & covered]
    if any(not one.get("hosts") for one in certificates):
        plain = []  # one certificate for all hosts
    return Finding(not plain, f"Ingress {_name(thing)}: " + (f"no tls for {', '.join(plain)}" if plain else "tls"))


def _of_gateway(thing: Object) -> Finding:
    spoken = [one.get("protocol") for one in thing["spec"].get("listeners") or ()]
    safe = any(one in ("HTTPS", "TLS") for one in spoken)
    return Finding(safe, f"Gateway {_name(thing)}: {'HTTPS' if safe else 'no HTTPS listener'}")


def _alerts(objects: Sequence[Object]) -> Finding | None:
    found = [one for one in objects if one["kind"] == "PrometheusRule"]
    alerts = [
        rule["alert"]
        for one in found
        for group in one["spec"].get("groups") or ()
        for rule in group.get("rules") or ()
        if "alert" in rule
    ]
    if not found:
        return None
    return passed(f"alerts: {', '.join(alerts)}") if alerts else failed("PrometheusRule without an alert")


def _kept(objects: Sequence[Object], *kinds: str) -> Finding | None:
    found = [f"{one['kind']} {_name(one)}" for one in objects if one["kind"] in kinds]
    return passed(", ".join(found)) if found else None


def _name(thing: Object) -> str:
    return str(thing["metadata"]["name"])
