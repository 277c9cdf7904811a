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
    TextOrSecret,
    Timeout,
    VariableName,
)
from headway.domain import revision

__all__ = ["Approval", "Environment", "Instances"]

MAX_INSTANCES = 1000


def _item_or_group(value: str) -> str:
    if value not in {*ITEMS, *GROUPS}:
        raise ValueError(f"no item or group {value!r}{nearest(value, {*ITEMS, *GROUPS})}")
    return value


ChecklistName = Annotated[str, AfterValidator(_item_or_group)]


class Approval(Section):
    """Who has to agree before this environment changes. `true` is an approval by anybody."""

    by: tuple[str, ...] = Field(default=(), description="people or groups that may approve; left out: anybody")
    expires: Timeout = Field(default=86400.0, description="without an answer until then the release ends")
    not_author: StrictBool = Field(default=False, description="the author of the change may not approve it")


def _long_approval(value: object) -> object:
    if value is None or isinstance(value, dict | Approval):
        return value
    if isinstance(value, bool):
        return Approval() if value else None
    raise ValueError("expected true, false or a mapping")


class Instances(Section):
    """How many copies of the app run: a number, or on Kubernetes a range in which an autoscaler decides."""

    min: StrictInt = Field(ge=1, le=MAX_INSTANCES, description="the fewest")
    max: StrictInt = Field(ge=1, le=MAX_INSTANCES, description="the most")
    cpu: Percent = Field(default=70.0, ge=1, description="share of the requested processor time that they are to use")

    @model_validator(mode="after")
    def _is_a_range(self) -> Instances:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, less than min, {self.min}")
        return self

    @property
    def autoscale(self) -> revision.Autoscale | None:
        """None where there is nothing to decide."""
        return revision.Autoscale(min=self.min, max=self.max, cpu=round(self.cpu)) if self.max > self.min else None


def _long_instances(value: object) -> object:
    if isinstance(value, dict | Instances):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INSTANCES:
        return {"min": int(value), "max": int(value)}
    raise ValueError(f"expected a number from 1 to {MAX_INSTANCES}, or a range such as {{min: 2, max: 10, cpu: 70%}}")


class Environment(Section):
    """One place the app runs."""

    target: TargetName = Field(description="where it runs: TYPE/NAME of a target block, such as `process/production`")
    strategy: StrategySetting = Field(
        default=Rolling(), description="how a new version takes over; left out: `rolling`"
    )
    supersede: Literal["queue", "abort"] = Field(
        default="queue",
        description="a newer release that comes during a rollout waits for its end, or `abort`s it and takes its place",
    )
    instances: Annotated[
        Instances,
        BeforeValidator(_long_instances, json_schema_input_type=Annotated[StrictInt, Field(ge=1)] | Instances),
    ] = Field(default=Instances(min=1, max=1), description="copies of the app that run; `1` when left out")
    port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="public port; left out, the target keeps one per app"
    )
    smoke: tuple[HttpRequest, ...] = Field(default=(), description="requests that have to succeed after each rollout")
    approval: Annotated[
        Approval | None, BeforeValidator(_long_approval, json_schema_input_type=StrictBool | Approval)
    ] = Field(
        default=None,
        description="who has to agree first; left out or `false`: nobody. Of `preview`: who lets pull requests from "
        "forks run, which always wait for somebody",
    )
    freeze: tuple[Freeze, ...] = Field(
        default=(),
        description="when nothing is released here: weekly or dated windows, and `holidays` of a country or region",
    )
    readiness: tuple[ChecklistName, ...] = Field(
        default=(),
        description="items of the checklist, and groups of them, that have to pass or be attested before anything "
        "changes here; otherwise a person accepts that, by name: "
        + "; ".join(f"`{group}` ({', '.join(expand([group]))})" for group in GROUPS),
    )
    env: dict[VariableName, TextOrSecret] = Field(default={}, description="values of the variables of the contract")
    manifests: RepoPath | None = Field(
        default=None, description="Kubernetes manifests of this environment, such as a kustomize overlay"
    )
    ttl: Timeout | None = Field(
        default=None,
        description="only for `preview`: it is torn down so long after its last deploy, however open its pull request",
    )
    stop_grace: Duration = Field(default=10.0, description="time between SIGTERM and SIGKILL")
    drain: Duration = Field(default=30.0, description="time that requests in flight may take to finish")
    progress_deadline: Timeout = Field(default=600.0, description="a rollout step that takes longer has failed")
    after_deadline: Literal["rollback", "wait"] = Field(
        default="rollback",
        description="an analysis without a verdict by then is rolled back, or `wait`s until a person decides",
    )

    @property
    def kind(self) -> str:
        """Of the target."""
        return self.target.partition("/")[0]
