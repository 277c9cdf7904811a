"""Synthetic requests to pods, through the API server, for targets without Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from blocks.targets.kubernetes import pod_status
from blocks.targets.kubernetes.api_client import Cluster, Object
from headway.domain.measurements import Bucket, RequestCounts

__all__ = ["probed"]

PROBES = 10  # requests to each revision for one reading
AT_ONCE = 5
ANSWER = 10.0  # seconds
BOUNDS = [0.001 * 1.25**step for step in range(50)]  # seconds: buckets of the latency histogram, up to a minute
EDGES = [0.0, *BOUNDS, BOUNDS[-1] * 2]


def probed(cluster: Cluster, pods: Sequence[Object], path: str) -> RequestCounts:
    """Request a path of these pods in turn. A status of 500 and above, or no answer, is an error."""

    def ask(pod: Object) -> tuple[bool, float]:
        begun = time.monotonic()
        status = cluster.ask(pod["metadata"]["name"], pod_status.port(pod), path, ANSWER)
        return status >= 500, time.monotonic() - begun

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, [pods[number % len(pods)] for number in range(PROBES)]))
    steps = Counter(bisect_right(BOUNDS, took) for _, took in answers)
    return RequestCounts(
        requests=len(answers),
        errors=sum(failed for failed, _ in answers),
        latency=tuple(Bucket(EDGES[step], EDGES[step + 1], number) for step, number in sorted(steps.items())),
    )
