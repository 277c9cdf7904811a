"""Instances and traffic of an app on a target."""

from __future__ import annotations

import difflib
from enum import StrEnum

from pydantic import Field, model_validator

from headway.domain.base import Frozen
from headway.domain.revision import LaunchSpec, Revision

__all__ = [
    "AdoptableState",
    "Capability",
    "HeaderRule",
    "Instance",
    "InstanceReadiness",
    "ObjectDiff",
    "Observation",
    "Traffic",
]


class Capability(StrEnum):
    """What a target can do. A strategy that needs more is refused when it is planned."""

    WEIGHTED_ROUTING = "weighted routing"
    HEADER_ROUTING = "header routing"
    ATOMIC_SWITCH = "atomic switch"
    INSTANCES = "instances"
    LOGS = "logs"
    METRICS = "metrics"
    PREVIEW = "preview route"
    SESSIONS = "sticky users"


class ObjectDiff(Frozen):
    """Change that a launch would make to one object of the platform. Without the values of secrets."""

    name: str = Field(description="what it is called there, such as `ConfigMap shop-config`")
    now: str = Field(description="how it is, as text; empty: it is not there")
    then: str = Field(description="how it would be; empty: it would be removed")

    @property
    def unified(self) -> list[str]:
        """The lines of a unified diff; none when nothing changes."""
        before, after = (self.name if text else "/dev/null" for text in (self.now, self.then))
        return list(
            difflib.unified_diff(
                self.now.splitlines(), self.then.splitlines(), before, after, "now", "then", lineterm=""
            )
        )


class HeaderRule(Frozen):
    """Routes requests with exactly this header to this revision, regardless of weights."""

    name: str
    value: str
    revision: str


class Traffic(Frozen):
    """Weights of revisions in percent, by id, with header rules. They sum to 100, or are empty if nothing is live."""

    weights: dict[str, int] = Field(default_factory=dict)
    headers: tuple[HeaderRule, ...] = ()
    sticky: bool = Field(default=False, description="a user stays with a revision; a rising weight moves no user back")
    preview: str | None = Field(default=None, description="the revision that the preview port shows")

    @model_validator(mode="after")
    def _sums_to_100(self) -> Traffic:
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError(f"a weight is negative: {self.weights}")
        if self.weights and sum(self.weights.values()) != 100:
            raise ValueError(f"weights sum to {sum(self.weights.values())}, not 100: {self.weights}")
        return self

    @classmethod
    def all_to(cls, revision: Revision | str) -> Traffic:
        return cls(weights={str(revision): 100})

    def without(self, revision: Revision | str) -> Traffic:
        """The same traffic without this revision, whose weight must be 0."""
        gone = str(revision)
        return Traffic(
            weights={one: weight for one, weight in self.weights.items() if one != gone},
            headers=tuple(rule for rule in self.headers if rule.revision != gone),
            sticky=self.sticky,
            preview=None if self.preview == gone else self.preview,
        )

    def __str__(self) -> str:
        shares = [f"{revision} {weight} %" for revision, weight in self.weights.items() if weight]
        shares += [f"{rule.revision} for {rule.name}: {rule.value}" for rule in self.headers]
        shares += [f"{self.preview} in the preview"] if self.preview else []
        return ", ".join(shares) or "nothing"


class Instance(Frozen):
    """One running copy of a revision."""

    name: str
    address: str = Field(description="host:port")
    ready: bool
    detail: str = Field(default="", description="why it is not ready, one line")
    run: str | None = Field(default=None, description="changes each time it is started, if the target reports it")


class Observation(Frozen):
    """Instances and traffic of an app, read from the platform."""

    app: str
    url: str | None = Field(description="where the app answers; None before the first launch")
    preview_url: str | None = Field(default=None, description="where the revision in the preview answers")
    traffic: Traffic
    instances: dict[str, tuple[Instance, ...]] = Field(
        description="revision id -> its instances; retired ones are gone"
    )

    def ready(self, revision: Revision | str) -> int:
        return sum(instance.ready for instance in self.instances.get(str(revision), ()))

    @property
    def lines(self) -> tuple[str, ...]:
        """Description for people, a line each."""
        where = [f"at {self.url}"] if self.url else []
        running = [
            f"{one.name} {one.address} {'ready' if one.ready else f'not ready: {one.detail}'}"
            for instances in self.instances.values()
            for one in instances
        ]
        return (f"traffic: {self.traffic}", *where, *(running or ["no instances"]))

    @property
    def live(self) -> str | None:
        """The revision that gets all traffic, if there is one."""
        return next((revision for revision, weight in self.traffic.weights.items() if weight == 100), None)


class AdoptableState(Frozen):
    """State of an app as stored by the platform, enough to rebuild a lost ledger."""

    token: int = Field(default=0, description="the highest fencing token that was claimed")
    revisions: tuple[tuple[Revision, LaunchSpec], ...] = Field(
        default=(), description="those that can come back, in the order in which they went live; what is live is last"
    )


class InstanceReadiness(Frozen):
    """Readiness of a revision's instances."""

    wanted: int
    ready: int
    failed: bool = Field(default=False, description="it will not get there: waiting longer is pointless")
    detail: str = ""
