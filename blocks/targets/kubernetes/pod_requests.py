"""Requests to the pods of a revision, through the API server, for targets without Prometheus."""

from __future__ import annotations

import itertools
import threading
import time

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import pod_status
from blocks.targets.kubernetes.api_client import POD, Cluster, Object
from headway.domain.errors import TargetError, UsageError
from headway.domain.plan import Probe, Synthetic

__all__ = ["PodRequests", "require_sendable"]

FRESH = 1.0  # seconds for which a list of pods is used
TRIES = 3  # pods that may be gone before a request is given up
NO_ANSWER = 503
NOT_PASSED_ON = ("authorization", "impersonate-user", "impersonate-group", "impersonate-uid")


def require_sendable(target: str, synthetic: Synthetic) -> None:
    """Raise UsageError when the API server would not pass a header of these requests on to a pod."""
    for request in synthetic.requests:
        if kept := [name for name in request.headers if name.lower() in NOT_PASSED_ON]:
            raise UsageError(
                f"{target}: {request.method} {request.path}: the API server keeps the header {kept[0]} for itself and "
                "does not pass it on to a pod",
                "leave the header out, or give the target a Prometheus: requests go through the app's URL then",
            )


class PodRequests:
    """Sends requests to the ready pods of a revision in turn. May be used by several threads."""

    def __init__(self, cluster: Cluster, app: str, revision: str) -> None:
        self._cluster = cluster
        self._app = app
        self._revision = revision
        self._lock = threading.Lock()
        self._turn = itertools.count()
        self._pods: list[Object] = []
        self._read = float("-inf")

    def send(self, request: Probe) -> int:
        """Status of the answer; 503 when no pod is ready or none answers.

        Raises TargetError when the API server does not pass the request on.
        """
        for _ in range(TRIES):
            pod = self._next()
            if pod is None:
                return NO_ANSWER
            status = self._cluster.send(pod["metadata"]["name"], pod_status.port(pod), request)
            if status is not None:
                return status
            self._read = float("-inf")  # it is gone: a replacement may be there
        raise TargetError(f"{self._app}: pods of {self._revision} go while they get requests", "try again")

    def _next(self) -> Object | None:
        with self._lock:
            if time.monotonic() - self._read > FRESH:
                found = self._cluster.find(POD, names.selector(app=self._app, revision=self._revision))
                self._pods = [pod for pod in found if pod_status.takes_requests(pod)]
                self._read = time.monotonic()
            return self._pods[next(self._turn) % len(self._pods)] if self._pods else None
