"""Rollout strategies: how a new version replaces the live one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    WrapSerializer,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from headway.config.analysis import Analysis, CanaryAnalysis
from headway.config.base import Section
from headway.config.validation import Fault, nearest, raise_faults
from headway.config.value_parsers import parse_percent
from headway.config.value_types import Duration, HeaderName, PauseLength, Portion, Text, Timeout, Weight
from headway.domain.traffic import Capability

__all__ = ["BlueGreen", "Canary", "CanaryStep", "Recreate", "Rolling", "Strategy", "StrategySetting"]


def _long_rehearsal(value: object) -> object:
    return {True: 1.0, False: None}[value] if isinstance(value, bool) else value


Rehearsal = Annotated[
    Timeout | None, BeforeValidator(_long_rehearsal, json_schema_input_type=StrictBool | Timeout | None)
]
REHEARSE = (
    "before promotion, switch to a low weight and back while requests are counted; the rollout ends if "
    "switching back takes longer than this or a request fails. `true` is `1s`"
)


class Strategy(Section):
    """How a new version replaces the live one."""

    kind: SkipJsonSchema[str]

    @property
    def needs(self) -> frozenset[Capability]:
        """Capabilities of the target that these settings need, beyond those of the strategy itself."""
        return frozenset()

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        """The analyses of a rollout, in order."""
        return ()


class Recreate(Strategy):
    """Stop the old version, then start the new one. Requests fail in between."""

    kind: SkipJsonSchema[Literal["recreate"]] = "recreate"


class Rolling(Strategy):
    """Replace instance by instance; both versions serve requests meanwhile."""

    kind: SkipJsonSchema[Literal["rolling"]] = "rolling"
    max_surge: Portion = Field(
        default=1, description="instances above `instances` during the rollout; a percentage is rounded up"
    )
    max_unavailable: Portion = Field(
        default=0, description="instances below `instances` during the rollout; a percentage is rounded down"
    )
    analysis: Analysis | None = Field(default=None, description="analysis of the new version before the old one stops")

    @model_validator(mode="after")
    def _moves(self) -> Rolling:
        if not _is_positive(self.max_surge) and not _is_positive(self.max_unavailable):
            raise ValueError("max_surge and max_unavailable are both 0: no instance could ever be replaced")
        return self

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        return (self.analysis,) if self.analysis else ()

    def surge(self, instances: int) -> int:
        """Instances beyond `instances` that may run at once; a percentage is rounded up."""
        return _share(self.max_surge, instances, math.ceil)

    def unavailable(self, instances: int) -> int:
        """Instances of `instances` that may be missing; a percentage is rounded down."""
        return _share(self.max_unavailable, instances, math.floor)


def _share(portion: int | str, instances: int, whole: Callable[[float], int]) -> int:
    return portion if isinstance(portion, int) else whole(parse_percent(portion) * instances / 100)


def _is_positive(portion: int | str) -> bool:
    return _share(portion, 100, math.ceil) > 0


class BlueGreen(Strategy):
    """Start the new version next to the old one, test it, then switch all requests at once."""

    kind: SkipJsonSchema[Literal["blue_green"]] = "blue_green"
    scale_down_delay: Duration = Field(
        default=600.0, description="time for which the old version keeps running after the switch, for a quick rollback"
    )
    auto_promotion: StrictBool = Field(
        default=True, description="switch without asking. `false`: wait for `headway promote`"
    )
    preview_port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="port of the preview route. Default: the target chooses one"
    )
    pre_promotion: Analysis | None = Field(
        default=None, description="analysis through the preview route before the switch, with synthetic requests only"
    )
    post_promotion: Analysis | None = Field(
        default=None, description="analysis after the switch, while the old version still runs"
    )
    rehearse: Rehearsal = Field(default=None, description=REHEARSE)

    @field_validator("pre_promotion")
    @classmethod
    def _has_requests(cls, analysis: Analysis | None) -> Analysis | None:
        if analysis is not None and analysis.synthetic is None and analysis.conditions:
            raise ValueError("needs synthetic requests: users do not reach the preview route")
        return analysis

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset(
            capability
            for capability, needed in (
                (Capability.PREVIEW, self.pre_promotion or self.preview_port),
                (Capability.WEIGHTED_ROUTING, self.rehearse),
            )
            if needed
        )

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        return tuple(one for one in (self.pre_promotion, self.post_promotion) if one)


class CanaryStep(Section):
    """One step of a canary. Short form: `5%`."""

    weight: Weight = Field(description="share of the requests that the new version gets")
    pause: PauseLength = Field(
        default=0.0, description="pause after this step. `forever`: until `headway skip` or `headway promote`"
    )
    analysis: CanaryAnalysis | None = Field(
        default=None, description="analysis of this step, instead of the common one"
    )
    judged: StrictBool = Field(default=True, description="`false`: no analysis in this step")
    header: dict[HeaderName, Text] = Field(
        default={}, description="header whose requests go to the new version from this step on"
    )


def _long_step(value: object) -> object:
    return value if isinstance(value, dict | CanaryStep) else {"weight": value}


class Canary(Strategy):
    """Give the new version a growing share of the requests, and analyse it at each step."""

    kind: SkipJsonSchema[Literal["canary"]] = "canary"
    steps: tuple[
        Annotated[CanaryStep, BeforeValidator(_long_step, json_schema_input_type=Weight | CanaryStep)], ...
    ] = Field(
        default=(CanaryStep(weight=5), CanaryStep(weight=50), CanaryStep(weight=100)),
        min_length=1,
        description="rising weights, the last one 100%. Default: `[5%, 50%, 100%]`",
    )
    analysis: CanaryAnalysis | None = Field(default=None, description="analysis at every step")
    sticky: StrictBool = Field(
        default=False,
        description="keep each user on one version, by a cookie, until a rising weight moves them to the new one. "
        "Requests of one user fail together, so `false_rollback` is then only approximate",
    )
    rehearse: Rehearsal = Field(default=None, description=REHEARSE)

    @field_validator("steps")
    @classmethod
    def _rise_to_all(cls, steps: tuple[CanaryStep, ...]) -> tuple[CanaryStep, ...]:
        weights = [step.weight for step in steps]
        if weights != sorted(set(weights)) or weights[-1] != 100:
            raise ValueError(f"the weights have to rise and end with 100%: {', '.join(f'{w}%' for w in weights)}")
        if steps[-1].header:
            raise ValueError(
                "the last step has a header, but everybody gets the new version there: give an earlier one"
            )
        return steps

    @model_validator(mode="after")
    def _splits_the_traffic(self) -> Canary:
        """A canary of one step never splits traffic: settings about the split would have no effect."""
        vain = [name for name in ("sticky", "rehearse") if getattr(self, name)]
        analysis = self.analysis_at(self.steps[0])
        vain += ["false_rollback"] if analysis and analysis.false_rollback else []
        if vain and len(self.steps) == 1:
            raise ValueError(f"{' and '.join(vain)} would do nothing: needs a step below 100%")
        return self

    def analysis_at(self, step: CanaryStep) -> CanaryAnalysis | None:
        """The step's own analysis, or that of all steps."""
        return (step.analysis or self.analysis) if step.judged else None

    @property
    def needs(self) -> frozenset[Capability]:
        found = {Capability.HEADER_ROUTING} if any(step.header for step in self.steps) else set()
        found |= {Capability.SESSIONS} if self.sticky else set()
        return frozenset(found)

    @property
    def analyses(self) -> tuple[Analysis, ...]:
        return tuple(one for step in self.steps if (one := self.analysis_at(step)))


_AnyStrategy = Annotated[Recreate | Rolling | BlueGreen | Canary, Field(discriminator="kind")]
_StrategyName = Literal["recreate", "rolling", "blue_green", "canary"]


class StrategyForm(Section):
    """A strategy with its settings. Short form: `strategy: rolling`."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    recreate: Recreate | None = Field(default=None, description="stop the old version, then start the new one")
    rolling: Rolling | None = Field(default=None, description="instance by instance")
    blue_green: BlueGreen | None = Field(
        default=None, description="start all instances next to the old ones, then switch"
    )
    canary: Canary | None = Field(default=None, description="a growing share of the requests")


def _long_strategy(value: object) -> object:
    """`rolling` or `{rolling: {max_surge: 2}}` -> what the discriminated union reads."""
    names = get_args(_StrategyName)
    if isinstance(value, Section):
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"expected one strategy: {', '.join(names)}")
    ((name, body),) = value.items()
    if name not in names:
        raise ValueError(f"unknown strategy {name!r}{nearest(str(name), names)}")
    if not isinstance(body, dict):
        raise_faults([Fault((name,), "expected a mapping")])
    if "kind" in body:
        raise_faults([Fault((name, "kind"), "unknown key 'kind'")])
    return {**body, "kind": name}


def _write_strategy(strategy: object, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
    body = handler(strategy)
    return {body.pop("kind"): body}


StrategySetting = Annotated[
    _AnyStrategy,
    BeforeValidator(_long_strategy, json_schema_input_type=_StrategyName | StrategyForm),
    WrapSerializer(_write_strategy),
]
