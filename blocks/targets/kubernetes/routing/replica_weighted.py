"""Splits requests by the number of pods: the selector of the app's Service chooses one revision, or a pool of pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from blocks.targets.kubernetes import labels, pod_status, render, replica_weights
from blocks.targets.kubernetes.routing.base import Object, Pods, Routing, app_service
from headway.domain.plan import Plan
from headway.domain.refusal import Refusal
from headway.domain.traffic import Capability, Traffic

__all__ = ["ByPods", "in_pool"]

WHOLE = 100  # percent


class ByPods(Routing):
    """Splits requests as closely as the number of pods allows."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    def refusal(self, traffic: Traffic) -> Refusal | None:
        if traffic.headers or traffic.sticky:
            return Refusal(
                "a Service knows no headers and no sessions", "give the target a gateway or an ingress class"
            )
        return None

    def remarks(self, plan: Plan, running: Mapping[str, int]) -> tuple[str, ...]:
        return replica_weights.remarks(plan, running)

    def pool(self, traffic: Traffic, ready: Mapping[str, int]) -> Mapping[str, int]:
        return replica_weights.nearest(traffic.weights, ready) if _shared(traffic) else {}

    def objects(
        self,
        app: str,
        environment: str,  # noqa: ARG002  # it is in the Service's frame
        traffic: Traffic,
        rules: render.Rules,
        found: Sequence[Object],  # noqa: ARG002  # one object, whatever there is
    ) -> list[Object]:
        if not _shared(traffic):
            return [app_service(app, traffic, rules)]
        return [render.service_traffic(app, app, rules, {labels.POOL: labels.OPEN}, str(traffic))]

    def traffic(self, app: str, service: Mapping[str, Any] | None, pods: Pods, found: Sequence[Object]) -> Traffic:  # noqa: ARG002  # all is in the Service
        if (one := render.selected(service)) is not None:
            return Traffic.all_to(one)
        if labels.POOL not in ((service or {}).get("spec", {}).get("selector") or {}):
            return Traffic()
        sharing = {
            revision: sum(in_pool(pod) and pod_status.is_ready(pod) for pod in ours) for revision, ours in pods.items()
        }
        return Traffic(weights=replica_weights.weights(sharing))


def in_pool(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is in the pool that several revisions share."""
    return bool(pod["metadata"]["labels"].get(labels.POOL) == labels.OPEN)


def _shared(traffic: Traffic) -> bool:
    return WHOLE not in traffic.weights.values() and bool(traffic.weights)
