"""The environments of headway.yaml: where the app runs, and what a release has to keep there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, model_validator

from headway.config.base import Section
from headway.config.http_request import HttpRequest
from headway.config.readiness_items import GROUPS, ITEMS, expand
from headway.config.strategy import Rolling, StrategySetting
from headway.config.validation import nearest
from headway.config.value_types import (
    Duration,
    Freeze,
    Percent,
    RepoPath,
    TargetName,
    Text,
    TextOrSecret,
    Timeout,
    VariableName,
)
from headway.domain import revision
from headway.domain.access import GROUP

__all__ = ["Approval", "ChecklistName", "Environment", "Instances", "long_approval"]

MAX_INSTANCES = 1000


def _item_or_group(value: str) -> str:
    if value not in {*ITEMS, *GROUPS}:
        raise ValueError(f"no item or group {value!r}{nearest(value, {*ITEMS, *GROUPS})}")
    return value


ChecklistName = Annotated[str, AfterValidator(_item_or_group)]


class Approval(Section):
    """Approval before this environment changes. Short form: `true` is an approval by anyone."""

    by: tuple[str, ...] = Field(
        default=(),
        description="users, and groups as `group:NAME`, that may approve. Default: everybody with the role approver",
    )
    count: StrictInt = Field(default=1, ge=1, le=20, description="how many different people have to approve")
    expires: Timeout = Field(default=86400.0, description="time after which a release without a decision ends")
    not_author: StrictBool = Field(default=False, description="who wrote, pushed or requested it may not approve it")

    @model_validator(mode="after")
    def _can_be_reached(self) -> Approval:
        if self.by and self.count > len(set(self.by)) and not any(one.startswith(GROUP) for one in self.by):
            raise ValueError(f"count is {self.count}, but only {len(set(self.by))} may approve")
        return self


def long_approval(value: object) -> object:
    if value is None or isinstance(value, dict | Approval):
        return value
    if isinstance(value, bool):
        return Approval() if value else None
    raise ValueError("expected true, false or a mapping")


class Instances(Section):
    """Number of instances: a number, or on Kubernetes a range for an autoscaler."""

    min: StrictInt = Field(ge=1, le=MAX_INSTANCES, description="the fewest")
    max: StrictInt = Field(ge=1, le=MAX_INSTANCES, description="the most")
    cpu: Percent = Field(
        default=70.0, ge=1, description="target CPU utilisation of the autoscaler, in percent of the requested CPU"
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Instances:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, less than min, {self.min}")
        return self

    @property
    def autoscale(self) -> revision.Autoscale | None:
        """None for a fixed number."""
        return revision.Autoscale(min=self.min, max=self.max, cpu=round(self.cpu)) if self.max > self.min else None


def _long_instances(value: object) -> object:
    if isinstance(value, dict | Instances):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INSTANCES:
        return {"min": int(value), "max": int(value)}
    raise ValueError(f"expected a number from 1 to {MAX_INSTANCES}, or a range such as {{min: 2, max: 10, cpu: 70%}}")


class Environment(Section):
    """One environment of the app."""

    target: TargetName = Field(description="TYPE/NAME of the target block, such as `process/production`")
    strategy: StrategySetting = Field(
        default=Rolling(), description="how a new version replaces the live one. Default: `rolling`"
    )
    supersede: Literal["queue", "abort"] = Field(
        default="queue",
        description="what a newer release does during a rollout: wait for its end, or `abort` it",
    )
    instances: Annotated[
        Instances,
        BeforeValidator(_long_instances, json_schema_input_type=Annotated[StrictInt, Field(ge=1)] | Instances),
    ] = Field(default=Instances(min=1, max=1), description="number of instances. Default: `1`")
    port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="public port. Default: the target chooses one per app and keeps it"
    )
    smoke: tuple[HttpRequest, ...] = Field(
        default=(), description="smoke tests: requests that must succeed after each rollout"
    )
    approval: Annotated[
        Approval | None, BeforeValidator(long_approval, json_schema_input_type=StrictBool | Approval)
    ] = Field(
        default=None,
        description="approval before a release changes this environment. Default: none. In `preview`: who may approve "
        "pull requests from forks, which always wait for approval",
    )
    freeze: tuple[Freeze, ...] = Field(
        default=(),
        description="windows in which nothing is released: weekly or dated, or the `holidays` of a country or region",
    )
    freeze_override: tuple[Text, ...] = Field(
        default=(),
        description="users, and groups as `group:NAME`, that may release in spite of a freeze. Default: those who may "
        "approve",
    )
    readiness: tuple[ChecklistName, ...] = Field(
        default=(),
        description="production readiness items and groups that must pass or be attested before a release changes this "
        "environment; otherwise a person must approve: "
        + "; ".join(f"`{group}` ({', '.join(expand([group]))})" for group in GROUPS),
    )
    require: Literal["receipt"] | None = Field(
        default=None,
        description="`receipt`: nothing is launched here, rollbacks included, without a valid receipt of its release",
    )
    env: dict[VariableName, TextOrSecret] = Field(default={}, description="values of the variables")
    manifests: RepoPath | None = Field(
        default=None, description="Kubernetes manifests of this environment, such as a kustomize overlay"
    )
    ttl: Timeout | None = Field(
        default=None,
        description="only for `preview`: time after the last deploy at which the preview is torn down",
    )
    stop_grace: Duration = Field(default=10.0, description="time between SIGTERM and SIGKILL")
    drain: Duration = Field(default=30.0, description="time for requests in flight to finish before an instance stops")
    progress_deadline: Timeout = Field(
        default=600.0,
        description="time after which a step that waits for a verdict or for the platform fails",
    )
    after_deadline: Literal["rollback", "wait"] = Field(
        default="rollback",
        description="what happens to an analysis without a verdict at `progress_deadline`: roll back, or `wait` for a "
        "person",
    )

    @property
    def kind(self) -> str:
        """Platform of the target."""
        return self.target.partition("/")[0]
