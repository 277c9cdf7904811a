"""Status of pods: whether they are ready, and why not. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from blocks.targets.kubernetes import labels
from blocks.targets.kubernetes.container_spec import DEFAULT_CONTAINER, PORT_NAME
from headway.domain.refusal import Refusal
from headway.domain.traffic import Instance

__all__ = [
    "exit_code",
    "exit_reason",
    "expired",
    "failure",
    "instance",
    "is_finished",
    "is_ready",
    "is_terminating",
    "main_container",
    "port",
    "replica_failure",
    "revision",
    "takes_requests",
    "unready_reason",
    "warnings",
]

Pod = Mapping[str, Any]
CRASHES = 3  # in a row
NEWEST = 10  # warnings
NUMBERS = re.compile(r"[0-9]+([.:][0-9]+)*")  # addresses, ports, times: what differs when several say the same
LONGEST = 600  # characters of a message: those about images repeat the image's name three times before the reason
FINAL = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")  # permanent failures
PULLING = ("ErrImagePull", "ImagePullBackOff")
# Messages of registries and runtimes about permanent failures.
REFUSED = ("not found", "unauthorized", "denied", "forbidden", "does not exist", "insufficient_scope", "no match for")


def is_ready(pod: Pod) -> bool:
    """Whether Services send requests to it."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(pod))


def is_terminating(pod: Pod) -> bool:
    """Whether its deletion was requested."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def takes_requests(pod: Pod) -> bool:
    return is_ready(pod) and not is_terminating(pod)


def revision(pod: Pod) -> str | None:
    """Revision id of a pod or Deployment; None if it has no revision."""
    return (pod["metadata"].get("labels") or {}).get(labels.REVISION)


def instance(pod: Pod, port: int, events: Sequence[Mapping[str, Any]] = ()) -> Instance:
    """The instance that a pod is. `run` differs each time its container is started."""
    status = pod.get("status", {})
    restarts = sum(one.get("restartCount", 0) for one in _containers(pod))
    ready = is_ready(pod)
    return Instance(
        name=pod["metadata"]["name"],
        address=f"{status['podIP']}:{port}" if status.get("podIP") else "no address yet",
        ready=ready,
        detail="" if ready else unready_reason(pod, events),
        run=f"{pod['metadata'].get('uid', '')}/{restarts}",
    )


def main_container(pod: Pod) -> str:
    """Name of the container that gets the traffic."""
    annotated = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return str(annotated or pod["spec"]["containers"][0]["name"])


def port(pod: Pod) -> int:
    """Port of the main container; 0 if it declares none."""
    ports = next(one.get("ports") or [] for one in pod["spec"]["containers"] if one["name"] == main_container(pod))
    return next((int(one["containerPort"]) for one in ports if one.get("name") == PORT_NAME), 0)


def unready_reason(pod: Pod, events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Why a pod is not ready, on one line: the reason of its container, the scheduler, or the last probe."""
    for one in _containers(pod):
        if why := _container_trouble(one, pod):
            return why
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {_line(condition.get('message') or condition.get('reason'))}"
    warnings = [one for one in events if one.get("type") == "Warning" and one.get("reason") == "Unhealthy"]
    if warnings:
        return _line(warnings[-1].get("message"))
    return "not ready yet"


def failure(pod: Pod) -> Refusal | None:
    """Return why this pod will never be ready."""
    for one in _containers(pod):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        if reason in FINAL or (reason in PULLING and any(word in message.lower() for word in REFUSED)):
            return Refusal(f"{reason}: {_line(message)}")
        if one.get("restartCount", 0) >= CRASHES and not one.get("ready"):
            return Refusal(f"keeps dying: {exit_reason(one, pod)}")
    return None


def is_finished(pod: Pod) -> bool:
    """Whether it has ended and will not be restarted."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def warnings(events: Iterable[Mapping[str, Any]], app: str, revisions: Collection[str]) -> list[str]:
    """The newest warnings about the app's own objects and those of these revisions, the oldest first, a line each.

    The same warning about several objects, such as one about the DNS settings of every node, is one line.
    """
    own = {app, labels.preview(app), labels.canary(app), labels.command(app)}
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in sorted(events, key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or "")):
        about, message = one["involvedObject"], _line(one.get("message"))
        name = str(about.get("name", ""))
        if name in own or labels.revision_of(app, name) in revisions:
            key = about["kind"], str(one.get("reason")), NUMBERS.sub("#", message.replace(name, ""))
            groups[key] = [*groups.pop(key, []), one]  # the newest last
    return [_warning(same) for same in list(groups.values())[-NEWEST:]]


def _warning(same: Sequence[Mapping[str, Any]]) -> str:
    """One line for events that say the same."""
    last = same[-1]
    about, others = last["involvedObject"], len({one["involvedObject"]["name"] for one in same}) - 1
    more = f" and {others} more" if others else ""
    return f"{about['kind']} {about['name']}{more}: {last.get('reason')}: {_line(last.get('message'))}"


def exit_code(pod: Pod) -> int | None:
    """Exit code of a pod that runs once; None while it runs, or if it was ended at its deadline."""
    ended = [(one.get("state") or {}).get("terminated") for one in _containers(pod)]
    if not is_finished(pod) or not ended or not ended[-1]:
        return None
    return int(ended[-1]["exitCode"])


def replica_failure(deployment: Mapping[str, Any]) -> Refusal | None:
    """Return why the cluster creates no pods for this Deployment, such as a quota or a policy."""
    for one in deployment.get("status", {}).get("conditions") or []:
        if one["type"] == "ReplicaFailure" and one["status"] == "True":
            return Refusal(f"{one.get('reason', '')}: {_line(one.get('message'))}")
    return None


def expired(deployments: Iterable[Mapping[str, Any]], carried: Collection[str], keep: int) -> list[str]:
    """Names of the Deployments without pods that are not among the `keep` newest.

    One that never had all the traffic is removed first: it is no rollback target.
    """
    still = [
        (revision(one) in carried, one["metadata"]["annotations"][labels.ENDED], one["metadata"]["name"])
        for one in deployments
        if not one["spec"].get("replicas", 1) and labels.ENDED in one["metadata"].get("annotations", {})
    ]
    return [name for *_, name in sorted(still, reverse=True)[keep:]]


def exit_reason(container: Mapping[str, Any], pod: Pod) -> str:
    """Why a container ended last; empty if it never did."""
    states = (container.get("state") or {}, container.get("lastState") or {})
    ended = next((one["terminated"] for one in states if one.get("terminated")), None)
    if ended is None:
        return ""
    if ended.get("reason") == "OOMKilled":
        return f"out of memory (OOMKilled): its limit is {_limit(container, pod)}"
    if ended.get("message"):
        return f"{ended.get('reason')}: {_line(ended['message'])}"
    return f"it exited with code {ended['exitCode']}"


def _container_trouble(container: Mapping[str, Any], pod: Pod) -> str:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason == "CrashLoopBackOff" or (container.get("state") or {}).get("terminated"):
        return exit_reason(container, pod)
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return ""
    return f"{reason}: {_line(waiting.get('message'))}"


def _limit(container: Mapping[str, Any], pod: Pod) -> str:
    wanted = next(one for one in pod["spec"]["containers"] if one["name"] == container["name"])
    return str(wanted.get("resources", {}).get("limits", {}).get("memory", "that of the node"))


def _containers(pod: Pod) -> Iterable[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _conditions(pod: Pod) -> Iterable[Mapping[str, Any]]:
    return pod.get("status", {}).get("conditions") or []


def _line(words: object) -> str:
    return " ".join(str(words or "").split())[:LONGEST]
