"""Applies traffic on a cluster and waits until it is in effect, independent of how requests are split."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from blocks.targets.kubernetes import field_owners, labels, owned_objects, pod_status, render
from blocks.targets.kubernetes.api_client import POD, SERVICE, Cluster, Kind, Object, kind_of
from blocks.targets.kubernetes.routing.base import Gone, Pods, Routing, routed
from blocks.targets.kubernetes.routing.replica_weighted import in_pool
from headway.domain.errors import TargetError
from headway.domain.traffic import Traffic

__all__ = ["Router"]

SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice")
IN_FORCE = 30.0  # seconds until a route must be in effect


class Router:
    """`settle`: seconds until every node uses changed endpoints."""

    def __init__(self, cluster: Cluster, way: Routing, rules: render.Rules, settle: float) -> None:
        self._cluster = cluster
        self._way = way
        self._rules = rules
        self._settle = settle

    def prepare(self, app: str, environment: str) -> None:
        """Have the app's Service, which leads to no pods at first. Raises TargetError when there is one of others."""
        found = self._cluster.get(SERVICE, app)
        if found is None:
            self._cluster.apply(render.service_frame(app, app, environment, self._rules))
            self._cluster.apply(render.service_traffic(app, app, self._rules, None), manager=labels.ROUTER)
            return
        owned_objects.require_ours(self._cluster, environment, found)
        if labels.MANAGER in field_owners.of(found, "spec", "selector"):
            # An earlier version applied it as one: with no other owner the selector would go with the next line.
            self._cluster.apply(_selection(found), manager=labels.ROUTER, force=True)
        self._cluster.offer(render.service_frame(app, app, environment, self._rules))

    def found(self, app: str) -> list[Object]:
        """Existing routing objects besides Services."""
        found = [self._cluster.get(kind, name) for kind, name in self._way.reads(app)]
        return [one for one in found if one is not None]

    def await_one_ready(self, app: str, revisions: Sequence[str]) -> dict[str, int]:
        """Number of ready pods of each revision. Waits for a restarting pod, up to a limit.

        Raises TargetError when a revision has none.
        """
        ready: dict[str, int] = {}

        def lacking(pods: list[Object]) -> str:
            ready.update({revision: sum(map(pod_status.takes_requests, _of(pods, revision))) for revision in revisions})
            without = [revision for revision, number in ready.items() if not number]
            if without and not any(_of(pods, revision) for revision in without):
                raise _none_ready(app, without[0])  # no pod could become ready
            return without[0] if without else ""

        if late := self._cluster.until(POD, labels.selector(app=app), IN_FORCE, lacking):
            raise _none_ready(app, late)
        return ready

    def put(self, app: str, environment: str, traffic: Traffic) -> None:
        """Apply the traffic, one object after the other, and wait until every node uses it."""
        for thing in self._way.objects(app, environment, traffic, self._rules, self.found(app)):
            if isinstance(thing, Gone):
                self._remove(environment, thing)
                continue
            before, after = self._send(app, environment, thing)
            if kind_of(thing) == SERVICE:
                self._await_endpoints(app, thing, routed(traffic))
                if before is None:
                    time.sleep(self._settle)  # the next object needs its endpoints
            else:
                self._await_in_force(app, thing)
                if before != after:
                    time.sleep(self._way.settle)
        if len(routed(traffic)) == 1:  # a switch; a share takes effect meanwhile
            time.sleep(self._settle)

    def show(self, app: str, environment: str, revision: str | None) -> None:
        """Set the revision of the preview route, or none."""
        name = labels.preview(app)
        if revision is None and self._cluster.get(SERVICE, name) is None:
            return
        wanted = {labels.REVISION: revision} if revision else None
        self._cluster.take(render.service(name, app, environment, self._rules, wanted))
        for thing in self._way.preview(app, environment, self._rules):
            self._send(app, environment, thing)
            self._await_in_force(app, thing)

    def share(self, pods: Pods, wanted: Mapping[str, int]) -> None:
        """Set the pool: this number of pods of each revision, and none of other revisions."""
        for revision, ours in pods.items():
            inside = sorted(ours, key=lambda pod: (not pod_status.is_ready(pod), not in_pool(pod)))
            for number, pod in enumerate(inside):
                joins = number < wanted.get(revision, 0)
                if joins != in_pool(pod):
                    label = {labels.POOL: labels.OPEN if joins else None}
                    self._cluster.patch(POD, pod["metadata"]["name"], {"metadata": {"labels": label}})

    def _send(self, app: str, environment: str, thing: Object) -> tuple[str | None, str]:
        """Apply an object if it is Headway's. Returns its resource versions before, if it existed, and after."""
        found = self._cluster.get(kind_of(thing), thing["metadata"]["name"])
        if found is not None:
            owned_objects.require_ours(self._cluster, environment, found)
        entrance = (kind_of(thing), thing["metadata"]["name"]) == (SERVICE, app)
        applied = self._cluster.take(thing, manager=labels.ROUTER if entrance else labels.MANAGER)
        before = None if found is None else found["metadata"]["resourceVersion"]
        return before, applied["metadata"]["resourceVersion"]

    def _remove(self, environment: str, gone: Gone) -> None:
        """Remove an object if it exists and is Headway's."""
        found = self._cluster.get(gone.kind, gone.name)
        if found is not None:
            owned_objects.require_ours(self._cluster, environment, found)
            self._cluster.delete(gone.kind, gone.name)
            time.sleep(self._way.settle)

    def _await_endpoints(self, app: str, service: Object, sharing: Sequence[str]) -> None:
        """Wait until the Service's endpoints are pods of its revisions, at least one of each."""
        name, chosen = service["metadata"]["name"], render.selected(service)
        wanted = set(sharing) if labels.POOL in service["spec"]["selector"] else {chosen} - {None}

        def others(slices: list[Object]) -> str:
            serving = {_served(app, endpoint) for one in slices for endpoint in one.get("endpoints") or []} - {None}
            return "" if serving == wanted else ", ".join(map(str, serving)) or "nobody"

        if has := self._cluster.until(SLICE, f"kubernetes.io/service-name={name}", IN_FORCE, others):
            raise TargetError(
                f"{app}: after {IN_FORCE:g} s Service {name} has endpoints of {has}",
                "is the cluster's controller manager well?",
            )

    def _await_in_force(self, app: str, wanted: Object) -> None:
        """Wait until the status of the object reports that it is in effect."""
        kind, name = kind_of(wanted), wanted["metadata"]["name"]

        def pending(things: list[Object]) -> str:
            found = next((thing for thing in things if thing["metadata"]["name"] == name), None)
            return self._way.pending({**found, "kind": kind.kind}) if found else "it is gone"

        if why := self._cluster.until(kind, labels.selector(app=app), IN_FORCE, pending):
            raise TargetError(
                f"{app}: {kind.kind} {name} is not in force after {IN_FORCE:g} s: {why}",
                f"kubectl describe {kind.kind} {name} says more",
            )


def _selection(service: Object) -> Object:
    """The fields of the app's Service that say which pods it leads to, as they are."""
    known = service["metadata"]
    annotations = {labels.TRAFFIC: (known.get("annotations") or {}).get(labels.TRAFFIC, "")}
    metadata = {"name": known["name"], "namespace": known["namespace"], "annotations": annotations}
    selector = {"selector": service["spec"]["selector"]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": selector}


def _none_ready(app: str, revision: str) -> TargetError:
    return TargetError(f"{app}: {revision} has no ready instance to route to", "launch it first")


def _of(pods: Sequence[Object], revision: str) -> list[Object]:
    return [pod for pod in pods if pod_status.revision(pod) == revision]


def _served(app: str, endpoint: Mapping[str, Any]) -> str | None:
    """The revision of an endpoint that takes requests."""
    if not (endpoint.get("conditions") or {}).get("ready"):
        return None
    return labels.revision_of(app, str((endpoint.get("targetRef") or {}).get("name", "")))
