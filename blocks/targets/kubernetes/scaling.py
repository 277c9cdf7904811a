"""The number of pods of a revision, and the autoscaler that changes it."""

from __future__ import annotations

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import pod_status, render, workloads
from blocks.targets.kubernetes.api_client import AUTOSCALER, POD, Cluster, Object
from blocks.targets.kubernetes.one_off_pod import GONE
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec, Revision

__all__ = ["autoscaler", "await_fewer", "await_gone", "hand_over", "pause", "scale"]


def scale(cluster: Cluster, name: str, wanted: int, spec: LaunchSpec, rules: render.Rules) -> None:
    """Set the number of pods, and take over the field. Without a warning if the revision's own autoscaler has it."""
    thing = render.replicas(name, rules, wanted)
    if spec.autoscale:
        cluster.apply(thing, manager=names.SCALER, force=True)
    else:
        cluster.take(thing, manager=names.SCALER)


def autoscaler(deployment: Object, spec: LaunchSpec, rules: render.Rules) -> Object:
    """The HorizontalPodAutoscaler of a revision with this Deployment."""
    revision = Revision.model_validate_json(deployment["metadata"]["annotations"][names.REVISION_OF])
    return render.autoscaler(revision, spec, pod_status.main_container(deployment["spec"]["template"]), rules)


def hand_over(cluster: Cluster, app: str, revision: str, rules: render.Rules) -> None:
    """Have an autoscaler for the revision that serves only. Other revisions keep their number of pods."""
    for one in workloads.deployments(cluster, app):
        name, spec = one["metadata"]["name"], workloads.spec_of(one)
        if spec.autoscale and one["metadata"]["labels"][names.REVISION] == revision:
            cluster.take(autoscaler(one, spec, rules))
        elif spec.autoscale and one["spec"].get("replicas", 1):
            cluster.delete(AUTOSCALER, name)


def await_fewer(cluster: Cluster, revision: Revision, keep: int) -> None:
    """Wait until the other pods terminate. They finish the requests in flight within their grace period."""

    def left(pods: list[Object]) -> str:
        still = [pod["metadata"]["name"] for pod in pods if not pod_status.is_terminating(pod)]
        return still[-1] if len(still) > keep else ""

    ours = names.selector(app=revision.app, revision=revision.id)
    if late := cluster.until(POD, ours, GONE, left):
        raise TargetError(
            f"{revision.app}: pods of {revision} do not end: {late}", "is the cluster's controller manager well?"
        )


def await_gone(cluster: Cluster, app: str) -> None:
    """Wait until no pod of the app is terminating: an app that stops before it starts may not run twice."""

    def terminating(pods: list[Object]) -> str:
        return next((pod["metadata"]["name"] for pod in pods if pod_status.is_terminating(pod)), "")

    found = cluster.find(POD, names.selector(app=app))
    grace = max((pod["spec"].get("terminationGracePeriodSeconds", GONE) for pod in found), default=0)
    if late := cluster.until(POD, names.selector(app=app), grace + GONE, terminating):
        raise TargetError(f"{app}: pod {late} has not ended", "is its node well?")


def pause(deployment: Object) -> float:
    """Seconds for which its pods go on serving after their end has begun, by a preStop hook that sleeps."""
    pod = deployment["spec"]["template"]
    main = next(one for one in pod["spec"]["containers"] if one["name"] == pod_status.main_container(pod))
    hook = (main.get("lifecycle") or {}).get("preStop") or {}
    return float((hook.get("sleep") or {}).get("seconds", 0))
