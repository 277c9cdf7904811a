"""Logs of pods."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from blocks.targets.kubernetes import pod_status
from blocks.targets.kubernetes.api_client import Cluster, Object
from headway.domain.errors import TargetError
from headway.domain.log_lines import LogLine
from headway.system.redaction import Masker

__all__ = ["follow", "last_lines", "last_words"]

LAST_WORDS = 3  # lines of an app in a crash loop


def last_lines(cluster: Cluster, pod: Object, masked: Masker, lines: int) -> Iterator[LogLine]:
    """Last lines of a pod."""
    name = pod["metadata"]["name"]
    for line in cluster.logs(name, pod_status.main_container(pod), lines=lines, stamped=True):
        yield LogLine.stamped(name, masked(line))


def follow(cluster: Cluster, pods: Sequence[Object], maskers: Sequence[Masker]) -> Iterator[LogLine]:
    """New lines of these pods, as they come, until all pods have ended."""
    heard: queue.SimpleQueue[LogLine | None] = queue.SimpleQueue()

    def listen(pod: Object, masked: Masker) -> None:
        name = pod["metadata"]["name"]
        try:
            for line in cluster.follow(name, pod_status.main_container(pod)):
                heard.put(LogLine.stamped(name, masked(line)))
        except TargetError as error:
            heard.put(LogLine(name, error.what))
        heard.put(None)

    for one in zip(pods, maskers, strict=True):
        threading.Thread(target=listen, args=one, daemon=True).start()
    left = len(pods)
    while left:
        line = heard.get()
        if line is None:
            left -= 1
        else:
            yield line


def last_words(cluster: Cluster, pod: Object, masked: Masker) -> str:
    """Last log lines of a pod, joined to one line; empty if it has no log."""
    name, container = pod["metadata"]["name"], pod_status.main_container(pod)
    lines = cluster.logs(name, container, lines=LAST_WORDS)
    lines = lines or cluster.logs(name, container, lines=LAST_WORDS, previous=True)
    return " | ".join(map(masked, lines))
