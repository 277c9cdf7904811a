"""How many pods of a revision are ready, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import logs, pod_status, workloads
from blocks.targets.kubernetes.api_client import DEPLOYMENT, EVENT, POD, WATCHED, Cluster, Object
from headway.domain.revision import Revision
from headway.domain.traffic import InstanceReadiness

__all__ = ["readiness"]


def readiness(cluster: Cluster, revision: Revision) -> InstanceReadiness:
    """Wait a moment for a change if not all instances are ready, so that callers need not sleep between polls."""
    ours = names.selector(app=revision.app, revision=revision.id)
    pods, version = cluster.find_at(POD, ours)
    found = _of(cluster, revision, pods)
    if found.failed or found.ready >= found.wanted:
        return found
    cluster.changed(POD, ours, version, WATCHED)
    return _of(cluster, revision, cluster.find(POD, ours))


def _of(cluster: Cluster, revision: Revision, pods: Sequence[Object]) -> InstanceReadiness:
    found = cluster.get(DEPLOYMENT, names.deployment(revision))
    if found is None:
        return InstanceReadiness(wanted=0, ready=0, failed=True, detail=f"{names.deployment(revision)} is gone")
    ours = [pod for pod in pods if not pod_status.is_terminating(pod)]
    wanted, ready = found["spec"].get("replicas", 1), sum(map(pod_status.is_ready, ours))
    if ready >= wanted:
        return InstanceReadiness(wanted=wanted, ready=ready)
    if refusal := pod_status.replica_failure(found):
        return InstanceReadiness(wanted=wanted, ready=ready, failed=True, detail=refusal.what)
    for pod in ours:
        if failure := pod_status.failure(pod):
            detail = _with_log(cluster, pod, failure.what)
            return InstanceReadiness(wanted=wanted, ready=ready, failed=True, detail=detail)
    late = next((pod for pod in ours if not pod_status.is_ready(pod)), None)
    detail = pod_status.unready_reason(late, _events(cluster, late)) if late else "no pod has been made yet"
    return InstanceReadiness(wanted=wanted, ready=ready, detail=detail)


def _with_log(cluster: Cluster, pod: Object, reason: str) -> str:
    detail = f"{pod['metadata']['name']} {reason}"
    last = logs.last_words(cluster, pod, workloads.masker(cluster, pod))
    return f"{detail}: {last}" if last else detail


def _events(cluster: Cluster, pod: Object) -> list[Object]:
    return cluster.find(EVENT, fields=f"involvedObject.name={pod['metadata']['name']}")
