"""Analysis of a new version: the limits that it has to keep."""

from __future__ import annotations

from string import Template

from pydantic import Field, StrictInt, field_validator, model_validator

from headway.config.base import Section
from headway.config.http_request import HttpRequest
from headway.config.value_types import Condition, Duration, Label, Limit, Percent, SourceName, Text, Timeout
from headway.domain import plan

__all__ = ["Analysis", "CanaryAnalysis", "Metric", "Synthetic"]

JUDGES = ("success_rate", "p50", "p99", "metrics", "false_rollback")
PLACEHOLDERS = ("revision", "stable")


class Metric(Section):
    """A business metric with a limit. It is asked for every few seconds."""

    source: SourceName = Field(description="TYPE/NAME of a metric source block, such as `prometheus/main`")
    query: Text = Field(
        description="what is asked, one number; `$revision` and `$stable` stand for the new and the stable version"
    )
    limit: Limit = Field(description='what the answer has to be, such as `">= 5"`')
    lasting: Duration = Field(default=15.0, description="a limit that is broken for this long is a fail")

    @field_validator("query")
    @classmethod
    def _known_placeholders(cls, query: str) -> str:
        for name in Template(query).get_identifiers():
            if name not in PLACEHOLDERS:
                raise ValueError(f"unknown placeholder ${name}; there are: $revision, $stable, and $$ for a dollar")
        return query

    def step(self, name: str, new: str, stable: str | None) -> plan.MetricLimit:
        """As a plan keeps it."""
        return plan.MetricLimit(
            name=name,
            source=self.source,
            query=Template(self.query).safe_substitute(revision=new, stable=stable or ""),
            op=self.limit[0],
            limit=self.limit[1],
            lasting=self.lasting,
        )


class Synthetic(Section):
    """Requests of Headway's own, so that there is something to judge when users are few."""

    requests: tuple[HttpRequest, ...] = Field(
        min_length=1, description="what is requested, in turn; 5xx answers are errors"
    )
    rate: float = Field(
        default=5.0, gt=0, le=1000, description="requests a second; while users send more, none are sent"
    )


class Analysis(Section):
    """When the new version is good enough. It has to meet every condition that is written here."""

    window: Timeout = Field(default=10.0, description="how long it is watched")
    min_requests: StrictInt = Field(default=20, ge=1, description="with fewer requests than this nothing is decided")
    success_rate: Condition | None = Field(
        default=None, description="share of requests without a 5xx answer, in percent"
    )
    p50: Condition | None = Field(default=None, description="median latency")
    p99: Condition | None = Field(default=None, description="latency that 99 of 100 requests stay under")
    metrics: dict[Label, Metric] | None = Field(
        default=None, min_length=1, description="business metrics, each with a name for messages"
    )
    synthetic: Synthetic | None = Field(default=None, description="requests of Headway's own when users are few")

    @model_validator(mode="after")
    def _judges_something(self) -> Analysis:
        judges = [name for name in type(self).model_fields if name in JUDGES]
        if not any(getattr(self, name) is not None for name in judges):
            raise ValueError(f"needs at least one of {', '.join(judges)}: an analysis of nothing would always pass")
        return self

    @property
    def conditions(self) -> tuple[plan.Condition, ...]:
        """The guard-rails in the order success_rate, p50, p99."""
        return tuple(condition for condition in (self.success_rate, self.p50, self.p99) if condition is not None)

    def against(self, stable: str) -> plan.Comparison | None:  # noqa: ARG002  # a plain analysis compares with nothing
        """The comparison with the stable version that is asked for."""
        return None

    def step(self, new: str, stable: str | None, *, preview: bool = False) -> plan.Analyze:
        """The analysis of revision `new` beside `stable`, as a plan keeps it."""
        synthetic = self.synthetic and plan.Synthetic(
            requests=tuple(request.data for request in self.synthetic.requests), rate=self.synthetic.rate
        )
        return plan.Analyze(
            revision=new,
            window=self.window,
            conditions=self.conditions,
            min_requests=self.min_requests,
            against=self.against(stable) if stable and not preview else None,
            metrics=tuple(metric.step(name, new, stable) for name, metric in (self.metrics or {}).items()),
            synthetic=synthetic,
            preview=preview,
        )


class CanaryAnalysis(Analysis):
    """When the new version is good enough, on its own and beside the stable version under the same traffic."""

    false_rollback: Percent | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="how often, at most, a version as good as the stable one may be rolled back by mistake; "
        "with it the error rates and latencies of both are compared. Holds for requests that fail independently",
    )
    ignore_below: Percent = Field(
        default=0.0, lt=100, description="an error rate below this is never worse than the stable one"
    )
    ignore_slower: Percent = Field(
        default=25.0, description="a version slower than the stable one by no more than this, or 10 ms, is not worse"
    )

    def against(self, stable: str) -> plan.Comparison | None:
        """The comparison with the stable version that is asked for."""
        if self.false_rollback is None:
            return None
        return plan.Comparison(
            stable=stable,
            budget=self.false_rollback / 100,
            ignore_below=self.ignore_below / 100,
            ignore_slower=self.ignore_slower / 100,
        )
