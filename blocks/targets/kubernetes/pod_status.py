"""How the pods of a revision are, and whether those that are not ready will ever be. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from blocks.targets.kubernetes import labels
from blocks.targets.kubernetes.container_spec import DEFAULT_CONTAINER, PORT_NAME
from headway.domain.traffic import Instance

__all__ = [
    "asked",
    "died",
    "exit_code",
    "forgotten",
    "given_up",
    "instance",
    "is_going",
    "is_over",
    "is_ready",
    "port",
    "refused",
    "revision",
    "takes_requests",
    "unready",
    "warnings",
]

Pod = Mapping[str, Any]
CRASHES = 3  # in a row
NEWEST = 10  # events
LONGEST = 600  # characters of a message: what matters of one about an image comes after its name, three times
FINAL = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")  # reasons that waiting does not mend
PULLING = ("ErrImagePull", "ImagePullBackOff")
# Words of registries and runtimes that mean the next try ends the same way.
REFUSED = ("not found", "unauthorized", "denied", "forbidden", "does not exist", "insufficient_scope", "no match for")


def is_ready(pod: Pod) -> bool:
    """What the Services go by."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(pod))


def is_going(pod: Pod) -> bool:
    """Whether it was told to end."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def takes_requests(pod: Pod) -> bool:
    return is_ready(pod) and not is_going(pod)


def revision(pod: Pod) -> str | None:
    """The id of the revision that a pod, or a Deployment, is of; None: it is another thing of the app's."""
    return (pod["metadata"].get("labels") or {}).get(labels.REVISION)


def instance(pod: Pod, port: int, events: Sequence[Mapping[str, Any]] = ()) -> Instance:
    """A pod as Headway sees it. `run` is another one each time its container is started."""
    status = pod.get("status", {})
    restarts = sum(one.get("restartCount", 0) for one in _containers(pod))
    ready = is_ready(pod)
    return Instance(
        name=pod["metadata"]["name"],
        address=f"{status['podIP']}:{port}" if status.get("podIP") else "no address yet",
        ready=ready,
        detail="" if ready else unready(pod, events),
        run=f"{pod['metadata'].get('uid', '')}/{restarts}",
    )


def asked(pod: Pod) -> str:
    """The container that gets the traffic, by its name."""
    told = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    return str(told or pod["spec"]["containers"][0]["name"])


def port(pod: Pod) -> int:
    """The port that it listens on; 0 when it does not say."""
    ports = next(one.get("ports") or [] for one in pod["spec"]["containers"] if one["name"] == asked(pod))
    return next((int(one["containerPort"]) for one in ports if one.get("name") == PORT_NAME), 0)


def unready(pod: Pod, events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Why a pod is not ready, in one line: its container's reason, the scheduler's words, or the last probe's."""
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


def given_up(pod: Pod) -> str:
    """Why this pod will not get ready however long one waits; empty when it may."""
    for one in _containers(pod):
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message") or ""
        if reason in FINAL or (reason in PULLING and any(word in message.lower() for word in REFUSED)):
            return f"{reason}: {_line(message)}"
        if one.get("restartCount", 0) >= CRASHES and not one.get("ready"):
            return f"keeps dying: {died(one, pod)}"
    return ""


def is_over(pod: Pod) -> bool:
    """Whether it runs no more, and will not again."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def warnings(events: Iterable[Mapping[str, Any]], app: str) -> list[str]:
    """The last of them that are about this app's objects, which have its name in front; the oldest first."""
    ours = [one for one in events if str(one["involvedObject"].get("name", "")).startswith(app)]
    ours.sort(key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""))
    told = []
    for one in ours[-NEWEST:]:
        about = one["involvedObject"]
        told.append(f"{about['kind']} {about['name']}: {one.get('reason')}: {_line(one.get('message'))}")
    return told


def exit_code(pod: Pod) -> int | None:
    """How a pod that runs once has ended; None while it has not. One that was ended for its time has not by itself."""
    ended = [(one.get("state") or {}).get("terminated") for one in _containers(pod)]
    if not is_over(pod) or not ended or not ended[-1]:
        return None
    return int(ended[-1]["exitCode"])


def refused(deployment: Mapping[str, Any]) -> str:
    """Why the cluster makes no pods for this Deployment: a quota, a policy. Empty when it does."""
    for one in deployment.get("status", {}).get("conditions") or []:
        if one["type"] == "ReplicaFailure" and one["status"] == "True":
            return f"{one.get('reason', '')}: {_line(one.get('message'))}"
    return ""


def forgotten(deployments: Iterable[Mapping[str, Any]], carried: Collection[str], keep: int) -> list[str]:
    """Names of the Deployments that stand still and are not among those `keep` that one may go back to.

    One that never had all the traffic is the last thing anybody goes back to, and the first that is forgotten.
    """
    still = [
        (revision(one) in carried, one["metadata"]["annotations"][labels.ENDED], one["metadata"]["name"])
        for one in deployments
        if not one["spec"].get("replicas", 1) and labels.ENDED in one["metadata"].get("annotations", {})
    ]
    return [name for *_, name in sorted(still, reverse=True)[keep:]]


def died(container: Mapping[str, Any], pod: Pod) -> str:
    """How a container ended last, in words; empty when it never did."""
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
        return died(container, pod)
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
