"""What every way to split requests answers."""

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
from headway.domain.traffic import Capability, Traffic

__all__ = ["Gone", "Host", "Object", "Pods", "Routing", "front", "heaviest", "revision_service", "routed"]

Object = dict[str, Any]
Pods = Mapping[str, Sequence[Mapping[str, Any]]]  # revision id -> its pods


class Gone(NamedTuple):
    """An object that is to be removed."""

    kind: Kind
    name: str


class Host(Frozen):
    """Which requests are an app's: those to a host name, below a path. None: to whatever name."""

    name: str | None
    path: str

    @classmethod
    def of(cls, url: str, app: str, environment: str, namespace: str) -> Host:
        """An address is no name: what gets there is the app's, whatever it is called."""
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
    """What it can beyond splitting requests by weight."""
    settle: ClassVar[float] = 0.0
    """Seconds until one of its objects is in force, where nobody says so."""

    def reads(self, app: str) -> tuple[tuple[Kind, str], ...]:  # noqa: ARG002  # for ways that need no more than Services
        """Kinds and names of the objects that `traffic` is read from, and `destroy` removes."""
        return ()

    @abstractmethod
    def cannot(self, traffic: Traffic) -> tuple[str, str] | None:
        """Why this traffic cannot be had, and what to do about it; None when it can, be it nearly."""

    def remarks(self, plan: Plan, running: Mapping[str, int]) -> tuple[str, ...]:  # noqa: ARG002  # for ways that are exact
        """What a person should know of a plan's weights. `running`: how many pods there are of each revision now."""
        return ()

    def pool(self, traffic: Traffic, ready: Mapping[str, int]) -> Mapping[str, int]:  # noqa: ARG002  # likewise
        """How many pods of each revision share the traffic; empty where pods do not have to."""
        return {}

    @abstractmethod
    def objects(
        self, app: str, environment: str, traffic: Traffic, rules: render.Rules, found: Sequence[Object]
    ) -> Sequence[Object | Gone]:
        """What puts this traffic in force, in the order in which it has to be; `found` are those of `reads` that there
        are. An object may come more than once.
        """

    def preview(self, app: str, environment: str, rules: render.Rules) -> list[Object]:  # noqa: ARG002  # likewise
        """What leads to the preview's Service from outside."""
        return []

    def pending(self, found: Mapping[str, Any]) -> str:  # noqa: ARG002  # likewise
        """Why one of these objects is not in force yet; empty when it is."""
        return ""

    @abstractmethod
    def traffic(self, app: str, service: Mapping[str, Any] | None, pods: Pods, found: Sequence[Object]) -> Traffic:
        """Who gets what, by the app's Service, its pods, and those of `reads` that there are."""


def routed(traffic: Traffic) -> list[str]:
    """The revisions that somebody is sent to, by weight or by a header."""
    weighted = [revision for revision, weight in traffic.weights.items() if weight]
    return list(dict.fromkeys([*weighted, *(rule.revision for rule in traffic.headers)]))


def heaviest(traffic: Traffic) -> str | None:
    """The revision that most requests go to."""
    return max(traffic.weights, key=traffic.weights.__getitem__, default=None)


def front(app: str, environment: str, traffic: Traffic, rules: render.Rules) -> Object:
    """The app's Service where it splits nothing: whoever asks for it inside the cluster gets what most get outside."""
    chosen = heaviest(traffic)
    return render.service(app, app, environment, rules, {labels.REVISION: chosen} if chosen else None, str(traffic))


def revision_service(app: str, revision: str, environment: str, rules: render.Rules) -> Object:
    """The Service of one revision, which goes when its Deployment does."""
    made = render.service(labels.of_revision(app, revision), app, environment, rules, {labels.REVISION: revision})
    made["metadata"]["labels"][labels.REVISION] = revision
    return made
