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
    "before promotion, switch to a low weight and back while requests are counted; "
    "refused when the rollback takes longer than this or drops one; `true` is `1s`"
)


class Strategy(Section):
    """How a new version takes over."""

    kind: SkipJsonSchema[str]

    @property
    def needs(self) -> frozenset[Capability]:
        """What a target has to be able to do for these settings, beyond what the strategy itself needs."""
        return frozenset()


class Recreate(Strategy):
    """Stop the old version, then start the new one. For targets that can do no better."""

    kind: SkipJsonSchema[Literal["recreate"]] = "recreate"


class Rolling(Strategy):
    """Instance by instance; both versions serve meanwhile."""

    kind: SkipJsonSchema[Literal["rolling"]] = "rolling"
    max_surge: Portion = Field(default=1, description="instances more than wanted while rolling; a share is rounded up")
    max_unavailable: Portion = Field(
        default=0, description="instances fewer than wanted while rolling; a share is rounded down"
    )
    analysis: Analysis | None = Field(
        default=None, description="judge the new version at the end, before the old one goes"
    )

    @model_validator(mode="after")
    def _moves(self) -> Rolling:
        if not _is_positive(self.max_surge) and not _is_positive(self.max_unavailable):
            raise ValueError("max_surge and max_unavailable are both 0: no instance could ever be replaced")
        return self

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset({Capability.METRICS} if self.analysis else ())

    def surge(self, instances: int) -> int:
        """Instances beyond `instances` that may run at once; a percentage is rounded up."""
        return _share(self.max_surge, instances, math.ceil)

    def unavailable(self, instances: int) -> int:
        """Instances of `instances` that may be missing; a percentage is rounded down, but not so that nothing moves."""
        missing = _share(self.max_unavailable, instances, math.floor)
        return missing if missing or self.surge(instances) else 1


def _share(portion: int | str, instances: int, whole: Callable[[float], int]) -> int:
    return portion if isinstance(portion, int) else whole(parse_percent(portion) * instances / 100)


def _is_positive(portion: int | str) -> bool:
    return _share(portion, 100, math.ceil) > 0


class BlueGreen(Strategy):
    """The new version runs idle and is verified, then one atomic switch; the old one stays warm for a while."""

    kind: SkipJsonSchema[Literal["blue_green"]] = "blue_green"
    scale_down_delay: Duration = Field(
        default=600.0, description="how long the old version stays warm, one switch away from being live again"
    )
    auto_promotion: StrictBool = Field(
        default=True, description="switch by itself once the new version is verified; `false`: a person says when"
    )
    preview_port: StrictInt | None = Field(
        default=None, ge=1, le=65535, description="port that shows the new version before it is public; else chosen"
    )
    pre_promotion: Analysis | None = Field(
        default=None, description="judge the new version in the preview, on synthetic requests alone"
    )
    post_promotion: Analysis | None = Field(
        default=None, description="judge the new version once it has all traffic, with the old one a switch away"
    )
    rehearse: Rehearsal = Field(default=None, description=REHEARSE)

    @field_validator("pre_promotion")
    @classmethod
    def _has_requests(cls, analysis: Analysis | None) -> Analysis | None:
        if analysis is not None and analysis.synthetic is None and analysis.conditions:
            raise ValueError("needs synthetic requests: nobody else sees the preview")
        return analysis

    @property
    def needs(self) -> frozenset[Capability]:
        return frozenset(
            capability
            for capability, needed in (
                (Capability.METRICS, self.pre_promotion or self.post_promotion),
                (Capability.PREVIEW, self.pre_promotion or self.preview_port),
                (Capability.WEIGHTED_ROUTING, self.rehearse),
            )
            if needed
        )


class CanaryStep(Section):
    """One step of a canary. Just the weight is a step too: `5%`."""

    weight: Weight = Field(description="share of the traffic that the new version gets")
    pause: PauseLength = Field(default=0.0, description="wait after this step; `forever`: until a person says to go on")
    analysis: CanaryAnalysis | None = Field(default=None, description="judge this step by other limits than the others")
    judged: StrictBool = Field(default=True, description="with `false` this step is not judged at all")
    header: dict[HeaderName, Text] = Field(
        default={}, description="requests with such a header get the new version, from this step on"
    )


def _long_step(value: object) -> object:
    return value if isinstance(value, dict | CanaryStep) else {"weight": value}


class Canary(Strategy):
    """A growing share of the traffic, each step judged before the next."""

    kind: SkipJsonSchema[Literal["canary"]] = "canary"
    steps: tuple[
        Annotated[CanaryStep, BeforeValidator(_long_step, json_schema_input_type=Weight | CanaryStep)], ...
    ] = Field(
        default=(CanaryStep(weight=5), CanaryStep(weight=50), CanaryStep(weight=100)),
        min_length=1,
        description="rising weights, the last one 100%; left out: `[5%, 50%, 100%]`",
    )
    analysis: CanaryAnalysis | None = Field(default=None, description="judge the new version at every step")
    sticky: StrictBool = Field(
        default=False,
        description="keep users with the version they had, by a cookie; a rising weight takes more along. Requests of "
        "one user fail together, so `false_rollback` is then a guide and no promise",
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
        """With one step both versions never serve side by side, and nothing that is about that would ever happen."""
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
        found = {Capability.METRICS} if any(self.analysis_at(step) for step in self.steps) else set()
        found |= {Capability.HEADER_ROUTING} if any(step.header for step in self.steps) else set()
        found |= {Capability.SESSIONS} if self.sticky else set()
        return frozenset(found)


_AnyStrategy = Annotated[Recreate | Rolling | BlueGreen | Canary, Field(discriminator="kind")]
_StrategyName = Literal["recreate", "rolling", "blue_green", "canary"]


class StrategyForm(Section):
    """One strategy with its settings. Just its name is a strategy too: `strategy: rolling`."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    recreate: Recreate | None = Field(default=None, description="stop the old version, then start the new one")
    rolling: Rolling | None = Field(default=None, description="instance by instance")
    blue_green: BlueGreen | None = Field(default=None, description="all instances idle, then one switch")
    canary: Canary | None = Field(default=None, description="a growing share of the traffic")


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
