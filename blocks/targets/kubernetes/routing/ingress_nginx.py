"""ingress-nginx splits requests: an Ingress for the stable revision, a canary Ingress for another one.

https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary

Two objects cannot be changed atomically. So the canary Ingress gets all requests before the main Ingress is moved to
the same revision, and is removed afterwards. If two Ingresses lead to one Service, ingress-nginx uses only the
older one: the main Ingress, which exists for `settle` seconds before a canary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from blocks.targets.kubernetes import labels, render
from blocks.targets.kubernetes.api_client import Kind
from blocks.targets.kubernetes.routing.base import (
    Gone,
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

__all__ = ["INGRESS", "ByIngress"]

INGRESS = Kind("networking.k8s.io/v1", "Ingress")
CANARY = "nginx.ingress.kubernetes.io/canary"
WEIGHT, HEADER, VALUE = f"{CANARY}-weight", f"{CANARY}-by-header", f"{CANARY}-by-header-value"
WHOLE = 100  # percent


class _Share(NamedTuple):
    """Content of a canary Ingress: a percentage, and all requests with a header, go to this revision."""

    revision: str | None = None
    weight: int = 0
    header: tuple[str, str] | None = None


class ByIngress(Routing):
    """`ingress_class` is ingress-nginx's; the URLs are of the app and of its preview, `certificate` is the Secret with
    that of their hosts. They may name {app}, {environment} and {namespace}.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.HEADER_ROUTING})
    settle: ClassVar[float] = 4.0  # the controller applies changes every 3.3 s by default, without a status

    ingress_class: str
    url: str
    preview_url: str | None = None
    certificate: str | None = None

    def reads(self, app: str) -> tuple[tuple[Kind, str], ...]:
        preview = [(INGRESS, labels.preview(app))] if self.preview_url else []
        return ((INGRESS, app), (INGRESS, labels.canary(app)), *preview)

    def refusal(self, traffic: Traffic) -> Refusal | None:
        if traffic.sticky:
            return Refusal("ingress-nginx binds users to pods, not to a revision", "leave `sticky` out of the canary")
        if len(traffic.headers) > 1:
            return Refusal("ingress-nginx knows one header for a canary", "leave all but one out of the canary's steps")
        if len(routed(traffic)) > 2:
            return Refusal("ingress-nginx knows one canary beside the stable revision", "one release after the other")
        return None

    def objects(
        self, app: str, environment: str, traffic: Traffic, rules: render.Rules, found: Sequence[Object]
    ) -> list[Object | Gone]:
        main, canary = _read(app, found)
        wanted, share = _divided(traffic, main)
        services = [revision_service(app, revision, environment, rules) for revision in routed(traffic)]

        main_one = self._ingress(app, app, environment, rules, self.url, _service(app, wanted))
        gone = Gone(INGRESS, labels.canary(app))

        def shares(share: _Share) -> Object | Gone:
            if share.revision is None:
                return gone
            made = self._ingress(gone.name, app, environment, rules, self.url, _service(app, share.revision))
            made["metadata"]["annotations"] = _annotations(share)
            return made

        if main == wanted or canary.revision is None:
            moves = [main_one, shares(share)]
        elif canary.revision == wanted and share.revision is None:
            moves = [shares(_Share(wanted, WHOLE)), main_one, gone]
        else:
            moves = [gone, main_one, shares(share)]
        return [*services, *moves, app_service(app, traffic, rules)]

    def preview(self, app: str, environment: str, rules: render.Rules) -> list[Object]:
        if self.preview_url is None:
            return []
        name = labels.preview(app)
        return [self._ingress(name, app, environment, rules, self.preview_url, name)]

    def traffic(self, app: str, service: Mapping[str, Any] | None, pods: Pods, found: Sequence[Object]) -> Traffic:
        if not _exists(app, found):  # the target has just got its Ingress class
            return ByPods().traffic(app, service, pods, found)
        main, canary = _read(app, found)
        if main is None:
            return Traffic()
        if canary.revision in (None, main):
            return Traffic.all_to(main)
        weights = {main: WHOLE - canary.weight, canary.revision: canary.weight}
        return Traffic(
            weights={revision: weight for revision, weight in weights.items() if weight},
            headers=(HeaderRule(name=canary.header[0], value=canary.header[1], revision=canary.revision),)
            if canary.header
            else (),
        )

    def _ingress(self, name: str, app: str, environment: str, rules: render.Rules, url: str, service: str) -> Object:
        host = Host.of(url, app, environment, rules.namespace)
        backend = {"service": {"name": service, "port": {"number": render.HTTP}}}
        path = {"path": host.path, "pathType": "Prefix", "backend": backend}
        secret = self.certificate and self.certificate.format(
            app=app, environment=environment, namespace=rules.namespace
        )
        tls = ({"hosts": [host.name]} if host.name else {}) | ({"secretName": secret} if secret else {})
        return {
            "apiVersion": INGRESS.api_version,
            "kind": INGRESS.kind,
            "metadata": render.metadata(name, labels.labels(app, environment), rules),
            "spec": {
                "ingressClassName": self.ingress_class,
                "rules": [({"host": host.name} if host.name else {}) | {"http": {"paths": [path]}}],
                **({"tls": [tls]} if url.startswith("https:") else {}),
            },
        }


def _divided(traffic: Traffic, main: str | None) -> tuple[str | None, _Share]:
    """Revision of the main Ingress, and content of the canary one. The main revision stays while it has a weight."""
    named = {rule.revision for rule in traffic.headers}
    sharing = {revision: weight for revision, weight in traffic.weights.items() if weight}
    stable = {revision: weight for revision, weight in sharing.items() if revision not in named} or sharing
    wanted = main if main in stable else max(stable, key=stable.__getitem__, default=None)
    other = next((revision for revision in routed(traffic) if revision != wanted), None)
    if other is None:
        return wanted, _Share()
    header = next(((rule.name, rule.value) for rule in traffic.headers if rule.revision == other), None)
    return wanted, _Share(other, sharing.get(other, 0), header)


def _annotations(share: _Share) -> dict[str, str]:
    header = {HEADER: share.header[0], VALUE: share.header[1]} if share.header else {}
    return {CANARY: "true", WEIGHT: str(share.weight), **header}


def _exists(app: str, found: Sequence[Object]) -> bool:
    return any(one["metadata"]["name"] == app for one in found)


def _read(app: str, found: Sequence[Object]) -> tuple[str | None, _Share]:
    """Revision of the main Ingress, and content of the canary one."""
    by_name = {one["metadata"]["name"]: one for one in found}
    main, canary = by_name.get(app), by_name.get(labels.canary(app))
    if canary is None:
        return _revision(app, main), _Share()
    annotations = canary["metadata"].get("annotations") or {}
    header = (annotations[HEADER], annotations[VALUE]) if HEADER in annotations and VALUE in annotations else None
    return _revision(app, main), _Share(_revision(app, canary), int(annotations.get(WEIGHT, 0)), header)


def _revision(app: str, ingress: Mapping[str, Any] | None) -> str | None:
    if ingress is None:
        return None
    service = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]
    return labels.revision_of(app, service)


def _service(app: str, revision: str | None) -> str:
    """Service of a revision. Without one, the app's own Service, which has no pods then: 503."""
    return app if revision is None else labels.of_revision(app, revision)
