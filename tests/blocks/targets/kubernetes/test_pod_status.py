"""Pod statuses as kubelet and scheduler write them."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.targets.kubernetes import labels, pod_status
from headway.domain.refusal import Refusal


def pod(*containers: dict[str, Any], ready: bool = False, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"conditions": conditions, "containerStatuses": list(containers), "podIP": "10.0.0.7"} | status
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    return {
        "metadata": {"name": "shop-1111111-abcdef-x-y", "uid": "u1"},
        "spec": {"containers": [{"name": "app", **limits}]},
        "status": status,
    }


def container(restarts: int = 0, last: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    return {
        "name": "app",
        "restartCount": restarts,
        "ready": False,
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }


BACKOFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
KILLED = {"reason": "OOMKilled", "exitCode": 137}
PULL = "failed to pull and unpack image: registry/shop@sha256:1: not found"


def test_ready_pod() -> None:
    seen = pod_status.instance(pod(container(1, running={}), ready=True), 8080)
    assert (seen.ready, seen.address, seen.run, seen.detail) == (True, "10.0.0.7:8080", "u1/1", "")


def test_pod_without_an_address() -> None:
    assert pod_status.instance(pod(podIP=None), 8080).address == "no address yet"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (container(waiting={"reason": "ImagePullBackOff", "message": PULL}), f"ImagePullBackOff: {PULL}"),
        (container(3, KILLED, waiting=BACKOFF), "keeps dying: out of memory (OOMKilled): its limit is 64Mi"),
        (
            container(3, {"reason": "Error", "exitCode": 3}, waiting=BACKOFF),
            "keeps dying: it exited with code 3",
        ),
        (
            container(3, {"reason": "StartError", "exitCode": 128, "message": 'exec: "nope": not found'}),
            'keeps dying: StartError: exec: "nope": not found',
        ),
        (
            container(waiting={"reason": "CreateContainerConfigError", "message": "image will run as root"}),
            "CreateContainerConfigError: image will run as root",
        ),
        (container(waiting={"reason": "InvalidImageName", "message": "no"}), "InvalidImageName: no"),
    ],
)
def test_permanent_failures_are_reported_as_failed(state: dict[str, Any], why: str) -> None:
    assert str(pod_status.failure(pod(state))) == why


@pytest.mark.parametrize(
    "state",
    [
        container(waiting={"reason": "ContainerCreating"}),
        container(waiting={"reason": "ImagePullBackOff", "message": "dial tcp: i/o timeout"}),
        container(2, KILLED, waiting=BACKOFF),
        container(5, KILLED, running={}) | {"ready": True},
        container(running={}),
    ],
)
def test_transient_failures_are_not_final(state: dict[str, Any]) -> None:
    assert pod_status.failure(pod(state)) is None


def test_message_of_the_scheduler_is_quoted() -> None:
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}
    unscheduled = pod(conditions=[waiting], containerStatuses=None)
    assert pod_status.unready_reason(unscheduled) == "not scheduled: 0/1 nodes: cpu"


def test_message_of_the_last_probe_is_quoted() -> None:
    events = [
        {"type": "Normal", "reason": "Pulled", "message": "pulled"},
        {"type": "Warning", "reason": "Unhealthy", "message": "Startup probe failed: 503"},
        {"type": "Warning", "reason": "Unhealthy", "message": "Readiness probe failed: 500"},
    ]
    assert pod_status.unready_reason(pod(container(running={})), events) == "Readiness probe failed: 500"
    assert pod_status.unready_reason(pod(container(running={}))) == "not ready yet"


def test_crash_has_its_exit_reason() -> None:
    assert pod_status.unready_reason(pod(container(1, KILLED, waiting=BACKOFF))).startswith("out of memory")
    ended = container(terminated={"reason": "Error", "exitCode": 1})
    assert pod_status.unready_reason(pod(ended)) == "it exited with code 1"


def test_exceeded_quota_is_read_from_the_deployment() -> None:
    words = 'pods "shop-x" is forbidden: exceeded quota: small'
    full = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    assert pod_status.replica_failure({"status": {"conditions": [full]}}) == Refusal(f"FailedCreate: {words}")
    assert pod_status.replica_failure({"status": {}}) is None


OLD, NEW = "1111111-aaaaaa", "2222222-bbbbbb"


def warning(name: str, at: int, message: str = "Back-off\nrestarting", kind: str = "Pod") -> dict[str, Any]:
    about = {"kind": kind, "name": name}
    return {
        "involvedObject": about,
        "reason": "BackOff",
        "message": message,
        "lastTimestamp": f"2026-01-01T00:00:{at:02}Z",
    }


def test_warnings_are_about_the_app_and_its_running_revisions() -> None:
    events = [
        warning(f"shop-{NEW}-x2", 2),
        warning("node-1", 5, "out of disk", "Node"),
        warning("shop-admin-3333333-cccccc-x1", 6, "it is another app's"),
        warning(f"shop-{OLD}-x1", 7, "it is gone"),
        warning("shop", 1, "no endpoints", "Service"),
    ]
    assert pod_status.warnings(events, "shop", {NEW}) == [
        "Service shop: BackOff: no endpoints",
        f"Pod shop-{NEW}-x2: BackOff: Back-off restarting",
    ]


def test_same_warning_about_many_objects_is_one_line() -> None:
    limits = "Nameserver limits were exceeded, the applied line is: 10.0.0.{} 10.1.0.1"
    events = [warning(f"shop-{NEW}-x{number}", number, limits.format(number)) for number in range(9)]
    events += [warning(f"shop-{NEW}-x3", 20, "exit code 3 of " + letter) for letter in "abcdefghijkl"]
    (*_, last) = found = pod_status.warnings(events, "shop", {NEW})
    assert len(found) == pod_status.NEWEST
    assert last == f"Pod shop-{NEW}-x3: BackOff: exit code 3 of l"
    (line,) = pod_status.warnings(events[:9], "shop", {NEW})
    assert line == f"Pod shop-{NEW}-x8 and 8 more: BackOff: {limits.format(8)}"


def test_revision_that_never_had_all_traffic_is_removed_first() -> None:
    def deployment(revision: str, ended: str | None, replicas: int = 0) -> dict[str, Any]:
        annotations = {labels.ENDED: ended} if ended else {}
        metadata = {"name": f"shop-{revision}", "labels": {labels.REVISION: revision}, "annotations": annotations}
        return {"metadata": metadata, "spec": {"replicas": replicas}}

    deployments = [
        deployment("old", "2026-01-01T00:00:00"),
        deployment("newer", "2026-01-02T00:00:00"),
        deployment("never", "2026-01-03T00:00:00"),
        deployment("runs", "2026-01-01T00:00:00", replicas=2),
        deployment("begins", None),
    ]
    assert pod_status.expired(deployments, {"old", "newer"}, 3) == []
    assert pod_status.expired(deployments, {"old", "newer"}, 2) == ["shop-never"]
    assert pod_status.expired(deployments, {"old", "newer"}, 1) == ["shop-old", "shop-never"]
