"""A Gateway of the Gateway API splits requests: one HTTPRoute per app, one Service per revision, exact weights.

https://gateway-api.sigs.k8s.io/reference/spec/#httproute
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from blocks.targets.kubernetes import labels, render, replica_weights
from blocks.targets.kubernetes.api_client import Kind
from blocks.targets.kubernetes.routing.base import (
    Host,
    Object,
    Pods,
    Routing,
    app_service,
    revision_service,
    routed,
)
from blocks.targets.kubernetes.routing.replica_weighted import ByPods
from headway.domain.refusal import Refusal
from headway.domain.traffic import Capability, HeaderRule, Traffic

__all__ = ["HTTP_ROUTE", "ByGateway"]

GROUP = "gateway.networking.k8s.io"
HTTP_ROUTE = Kind(f"{GROUP}/v1", "HTTPRoute")
WHOLE = 100  # percent
NEEDED = ("Accepted", "ResolvedRefs")  # conditions of a route that is in force


class ByGateway(Routing):
    """`gateway` is NAMESPACE/NAME or NAMESPACE/NAME/LISTENER; the URLs are of the app and of its preview, and may name
    {app}, {environment} and {namespace}.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.HEADER_ROUTING})

    gateway: str
    url: str
    preview_url: str | None = None

    def reads(self, app: str) -> tuple[tuple[Kind, str], ...]:
        return ((HTTP_ROUTE, app), *([(HTTP_ROUTE, labels.preview(app))] if self.preview_url else []))

    def refusal(self, traffic: Traffic) -> Refusal | None:
        if traffic.sticky:
            return Refusal(
                "session persistence of the Gateway API is experimental, and no weight is kept with it",
                "leave `sticky` out of the canary",
            )
        return None

    def objects(
        self,
        app: str,
        environment: str,
        traffic: Traffic,
        rules: render.Rules,
        found: Sequence[Object],  # noqa: ARG002  # one object, whatever there is
    ) -> list[Object]:
        services = [revision_service(app, revision, environment, rules) for revision in routed(traffic)]
        host = Host.of(self.url, app, environment, rules.namespace)
        named = [_rule(app, {rule.revision: WHOLE}, host, rule) for rule in traffic.headers]
        route = self._route(app, app, environment, rules, host, [*named, _rule(app, traffic.weights, host)])
        return [*services, route, app_service(app, traffic, rules)]

    def preview(self, app: str, environment: str, rules: render.Rules) -> list[Object]:
        if self.preview_url is None:
            return []
        name, host = labels.preview(app), Host.of(self.preview_url, app, environment, rules.namespace)
        rule = {"matches": [_match(host)], "backendRefs": [_backend(name, 1)]}
        return [self._route(name, app, environment, rules, host, [rule])]

    def pending(self, found: Mapping[str, Any]) -> str:
        if found["kind"] != HTTP_ROUTE.kind:
            return ""
        parents = found.get("status", {}).get("parents") or []
        ours = [one for one in parents if one["parentRef"].items() >= self._parent.items()]
        if not ours:
            return f"no controller has taken it up: is there a Gateway {self.gateway}?"
        for one in ours:
            conditions = {condition["type"]: condition for condition in one.get("conditions") or []}
            for needed in NEEDED:
                condition = conditions.get(needed, {})
                if condition.get("observedGeneration", 0) < found["metadata"]["generation"]:
                    return f"{one.get('controllerName')} has not looked at it yet"
                if condition["status"] != "True":
                    return f"{needed} is {condition['status']}: {condition['reason']}: {condition.get('message', '')}"
        return ""

    def traffic(self, app: str, service: Mapping[str, Any] | None, pods: Pods, found: Sequence[Object]) -> Traffic:
        rules = next((one["spec"].get("rules") or [] for one in found if one["metadata"]["name"] == app), None)
        if rules is None:  # the target has just got its gateway
            return ByPods().traffic(app, service, pods, found)
        weights: dict[str, int] = {}
        headers: list[HeaderRule] = []
        for rule in rules:
            behind = {
                revision: one.get("weight", 1)
                for one in rule.get("backendRefs") or []
                if (revision := labels.revision_of(app, one["name"]))
            }
            match next((one["headers"] for one in rule.get("matches") or [] if one.get("headers")), []):
                case []:
                    weights = replica_weights.weights(behind)
                case [header]:
                    headers += [
                        HeaderRule(name=header["name"], value=header["value"], revision=revision) for revision in behind
                    ]
        return Traffic(weights=weights, headers=tuple(headers))

    def _route(
        self, name: str, app: str, environment: str, rules: render.Rules, host: Host, split: Sequence[Object]
    ) -> Object:
        return {
            "apiVersion": HTTP_ROUTE.api_version,
            "kind": HTTP_ROUTE.kind,
            "metadata": render.metadata(name, labels.labels(app, environment), rules),
            "spec": {
                "parentRefs": [self._parent],
                **({"hostnames": [host.name]} if host.name else {}),
                "rules": list(split),
            },
        }

    @property
    def _parent(self) -> Object:
        namespace, name, *section = self.gateway.split("/")
        gateway = {"group": GROUP, "kind": "Gateway", "namespace": namespace, "name": name}
        return gateway | ({"sectionName": section[0]} if section else {})


def _rule(app: str, weights: Mapping[str, int], host: Host, header: HeaderRule | None = None) -> Object:
    """A rule of the route. Without weights, it leads to the app's own Service, which has no pods then: 503."""
    behind = [_backend(labels.of_revision(app, revision), weight) for revision, weight in weights.items() if weight]
    return {"matches": [_match(host, header)], "backendRefs": behind or [_backend(app, 1)]}


def _match(host: Host, header: HeaderRule | None = None) -> Object:
    wanted = {"headers": [{"type": "Exact", "name": header.name, "value": header.value}]} if header else {}
    return {"path": {"type": "PathPrefix", "value": host.path}, **wanted}


def _backend(service: str, weight: int) -> Object:
    return {"group": "", "kind": "Service", "name": service, "port": render.HTTP, "weight": weight}
