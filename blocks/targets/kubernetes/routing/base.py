"""Interface of the modules that split requests."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from blocks.targets.kubernetes import labels, render
from blocks.targets.kubernetes.api_client import Kind
from headway.domain.base import Frozen
from headway.domain.plan import Plan
from headway.domain.refusal import Refusal
from headway.domain.traffic import Capability, Traffic

__all__ = ["Gone", "Host", "Object", "Pods", "Routing", "app_service", "heaviest", "revision_service", "routed"]

Object = dict[str, Any]
Pods = Mapping[str, Sequence[Mapping[str, Any]]]  # revision id -> its pods


class Gone(NamedTuple):
    """An object to remove."""

    kind: Kind
    name: str


class Host(Frozen):
    """Requests that belong to an app: those to a host name, below a path. Name None: to any host."""

    name: str | None
    path: str

    @classmethod
    def of(cls, url: str, app: str, environment: str, namespace: str) -> Host:
        """Host and path of a URL. An IP address is not a host name: all requests to it are the app's."""
        parts = urlsplit(url.format(app=app, environment=environment, namespace=namespace))
        name = parts.hostname
        try:
            ipaddress.ip_address(name or "")
        except ValueError:
            return cls(name=name, path=parts.path or "/")
        return cls(name=None, path=parts.path or "/")


class Routing(Frozen, ABC):
    """One way to split requests."""

    capabilities: ClassVar[frozenset[Capability]]
    """Capabilities besides splitting requests by weight."""
    settle: ClassVar[float] = 0.0
    """Seconds until one of its objects is in force, if its status does not tell."""

    def reads(self, app: str) -> tuple[tuple[Kind, str], ...]:  # noqa: ARG002  # by default
        """Kinds and names of the objects that `traffic` reads and `destroy` removes, besides Services."""
        return ()

    @abstractmethod
    def refusal(self, traffic: Traffic) -> Refusal | None:
        """Return why this traffic is impossible; None when it is possible, even if weights are rounded."""

    def remarks(self, plan: Plan, running: Mapping[str, int]) -> tuple[str, ...]:  # noqa: ARG002  # by default
        """Lines on weights of the plan that are rounded. `running`: number of pods of each revision."""
        return ()

    def pool(self, traffic: Traffic, ready: Mapping[str, int]) -> Mapping[str, int]:  # noqa: ARG002  # by default
        """Number of pods of each revision that share the traffic; empty if weights do not depend on pods."""
        return {}

    @abstractmethod
    def objects(
        self, app: str, environment: str, traffic: Traffic, rules: render.Rules, found: Sequence[Object]
    ) -> Sequence[Object | Gone]:
        """Changes that put this traffic in force, in this order. `found`: the existing objects of `reads`.

        An object may occur more than once.
        """

    def preview(self, app: str, environment: str, rules: render.Rules) -> list[Object]:  # noqa: ARG002  # by default
        """Objects that route requests from outside to the preview's Service."""
        return []

    def pending(self, found: Mapping[str, Any]) -> str:  # noqa: ARG002  # by default
        """Why this object is not in force yet; empty when it is."""
        return ""

    @abstractmethod
    def traffic(self, app: str, service: Mapping[str, Any] | None, pods: Pods, found: Sequence[Object]) -> Traffic:
        """The traffic in force, from the app's Service, its pods, and the existing objects of `reads`."""


def routed(traffic: Traffic) -> list[str]:
    """Revisions that get requests, by weight or by header."""
    weighted = [revision for revision, weight in traffic.weights.items() if weight]
    return list(dict.fromkeys([*weighted, *(rule.revision for rule in traffic.headers)]))


def heaviest(traffic: Traffic) -> str | None:
    """The revision with the highest weight."""
    return max(traffic.weights, key=traffic.weights.__getitem__, default=None)


def app_service(app: str, traffic: Traffic, rules: render.Rules) -> Object:
    """The app's Service if it does not split requests: inside the cluster it leads to the heaviest revision."""
    chosen = heaviest(traffic)
    return render.service_traffic(app, app, rules, {labels.REVISION: chosen} if chosen else None, str(traffic))


def revision_service(app: str, revision: str, environment: str, rules: render.Rules) -> Object:
    """The Service of one revision, which is removed with its Deployment."""
    made = render.service(labels.of_revision(app, revision), app, environment, rules, {labels.REVISION: revision})
    made["metadata"]["labels"][labels.REVISION] = revision
    return made
