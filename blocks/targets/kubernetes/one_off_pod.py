"""Runs a command once in a separate pod, one at a time for each app."""

from __future__ import annotations

import time

from blocks.targets.kubernetes import labels, pod_status
from blocks.targets.kubernetes.api_client import POD, Cluster, Object
from headway.domain.errors import TargetError
from headway.domain.ports import Command
from headway.system.redaction import Masker

__all__ = ["GONE", "make_way", "run"]

GONE = 30.0  # seconds beyond their grace time that pods may take to terminate
SAID = 100_000  # lines of a command, at most
LOOK = 1.0  # seconds between two checks whether to stop the command


def make_way(cluster: Cluster, app: str, environment: str) -> None:
    """Remove the pod of the previous command. Raises TargetError while it runs."""
    name = labels.command(app)
    known = cluster.get(POD, name)
    if known and not known["metadata"].get("deletionTimestamp") and not pod_status.is_finished(known):
        raise TargetError(
            f"{environment}: another command of {app} is still running",
            f"wait for its end, or end it: kubectl delete pod {name}",
        )
    cluster.delete(POD, name)

    def still_there(pods: list[Object]) -> str:
        return "it is there" if pods else ""

    if cluster.until(POD, _ours(app), GONE, still_there):
        raise TargetError(f"{app}: the pod of an earlier command does not end", "is its node well?")


def run(cluster: Cluster, app: str, pod: Object, command: Command, masked: Masker) -> int:
    """Wait for the pod, remove it, and return its exit code.

    Raises TargetError after a timeout, when it is stopped, or when another command of the app runs.
    """
    if cluster.create(pod) is None:
        raise TargetError(f"{app}: another command of it has just been started", "wait for its end")
    try:
        return _exit_code(cluster, app, command, masked)
    finally:
        cluster.delete(POD, labels.command(app))


def _exit_code(cluster: Cluster, app: str, command: Command, masked: Masker) -> int:
    deadline, printed = time.monotonic() + command.timeout, 0
    while True:
        pods, version = cluster.find_at(POD, _ours(app))  # before the log: the log of an exited pod is complete
        if not pods:
            raise TargetError(f"{app}: the pod of a command is gone: somebody removed it", "run it again")
        log = cluster.logs(pods[0]["metadata"]["name"], pod_status.main_container(pods[0]), lines=SAID)
        for line in log[printed:]:
            command.on_line(masked(line))
        printed = len(log)
        if (code := pod_status.exit_code(pods[0])) is not None:
            return code
        failure = pod_status.failure(pods[0])
        if command.stop.is_set() or time.monotonic() >= deadline or failure:
            why = "stopped" if command.stop.is_set() else failure or f"timed out after {command.timeout:g} s"
            raise TargetError(f"{masked(command.text)}: {why}; its pod was removed", "its last lines say what it did")
        cluster.changed(POD, _ours(app), version, LOOK)


def _ours(app: str) -> str:
    return f"{labels.COMMAND}={app}"
