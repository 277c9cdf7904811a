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
    """A business metric with a limit. It is queried every few seconds."""

    source: SourceName = Field(description="TYPE/NAME of a metric source block, such as `prometheus/main`")
    query: Text = Field(
        description="query that returns one number; `$revision` and `$stable` are the new and the stable revision"
    )
    limit: Limit = Field(description='limit for the number, such as `">= 5"`')
    lasting: Duration = Field(default=15.0, description="time after which a limit that is not met is a fail")

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
    """Synthetic requests, for when users send too few."""

    requests: tuple[HttpRequest, ...] = Field(
        min_length=1, description="requests to send, in turn. A 5xx response is a failure"
    )
    rate: float = Field(
        default=5.0, gt=0, le=1000, description="requests per second. None are sent while users send more"
    )


class Analysis(Section):
    """Conditions that the new version must meet, all of them."""

    window: Timeout = Field(default=10.0, description="duration of the analysis")
    min_requests: StrictInt = Field(default=20, ge=1, description="number of requests below which there is no verdict")
    success_rate: Condition | None = Field(
        default=None, description="limit for the share of requests that do not fail, in percent"
    )
    p50: Condition | None = Field(default=None, description="median latency")
    p99: Condition | None = Field(default=None, description="latency that 99 of 100 requests stay under")
    metrics: dict[Label, Metric] | None = Field(default=None, min_length=1, description="business metrics, by name")
    synthetic: Synthetic | None = Field(default=None, description="synthetic requests when users send too few")

    @model_validator(mode="after")
    def _judges_something(self) -> Analysis:
        judges = [name for name in type(self).model_fields if name in JUDGES]
        if not any(getattr(self, name) is not None for name in judges):
            raise ValueError(f"needs at least one of {', '.join(judges)}: an analysis of nothing would always pass")
        return self

    @property
    def conditions(self) -> tuple[plan.Condition, ...]:
        """The limits in the order success_rate, p50, p99."""
        return tuple(condition for condition in (self.success_rate, self.p50, self.p99) if condition is not None)

    def against(self, stable: str) -> plan.Comparison | None:  # noqa: ARG002  # an analysis without a canary has nothing to compare with
        """The comparison with the stable version, or None when the settings ask for none."""
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
    """Conditions for the new version, alone and in comparison with the stable version."""

    false_rollback: Percent | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="compare error rate and latency with the stable version; the value is the highest share of equally "
        "good versions that are rolled back by mistake. It holds if requests fail independently",
    )
    ignore_below: Percent = Field(
        default=0.0, lt=100, description="error rate below which the new version is never worse"
    )
    ignore_slower: Percent = Field(
        default=25.0, description="a version that is slower by no more than this, or by 10 ms, is not worse"
    )

    def against(self, stable: str) -> plan.Comparison | None:
        """The comparison with the stable version, or None when the settings ask for none."""
        if self.false_rollback is None:
            return None
        return plan.Comparison(
            stable=stable,
            budget=self.false_rollback / 100,
            ignore_below=self.ignore_below / 100,
            ignore_slower=self.ignore_slower / 100,
        )
