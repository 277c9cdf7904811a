"""PromQL queries for the counters of a revision, and sums of their results. Pure functions.

Counters are queried per pod, and added up here: a sum over all pods falls by an unknown amount when a pod restarts or
terminates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from string import Template
from typing import Literal, NamedTuple

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import render
from headway.domain.errors import MetricsUnavailable
from headway.domain.measurements import Bucket, RequestCounts, Sample

__all__ = ["EXPORTERS", "PLACEHOLDERS", "Counters", "Exporter", "Question", "unknown"]

Exporter = Literal["app", "ingress-nginx", "istio"]
Question = Literal["requests", "errors", "latency"]
STATUS = ("code", "status", "status_code")  # name of the label in common libraries
PLACEHOLDERS = ("app", "namespace", "revision", "service", "pods", "port")


_Series = tuple[Question, frozenset[tuple[str, str]]]


class _Exporter(NamedTuple):
    name: str  # in words
    queries: Mapping[Question, str]
    unit: float  # seconds per unit of `le`
    without_status: str = ""  # counters by which an error looks like a success


def _each(series: str) -> str:
    """Labels of the counting process: all its counters start at 0 together."""
    return f"sum by (instance, pod, controller_pod, le) ({series})"


def _nginx(metric: str, more: str = "") -> str:
    """Requests that the canary Ingress took are counted with the main one's service. A Prometheus that scrapes without
    `honor_labels` renames the labels that it has itself.
    """
    canary = f'{metric}{{canary="$namespace-$service-$port"{more}}}'
    stable = [
        f'{metric}{{{exported}service="$service",{exported}namespace="$namespace",canary=~"-?"{more}}}'
        for exported in ("", "exported_")
    ]
    return " or ".join([canary, *stable])


def _app(metric: str, *more: str) -> str:
    return " or ".join(f'{metric}{{namespace="$namespace",pod=~"$pods"{one}}}' for one in more or [""])


def _istio(metric: str, more: str = "") -> str:
    """Sidecars count a request on both sides: the app's side is used."""
    of = f'destination_workload="$service",destination_workload_namespace="$namespace"{more}'
    return f'{metric}{{reporter="destination",{of}}}'


EXPORTERS: Mapping[Exporter, _Exporter] = {
    "app": _Exporter(
        "the counters of the app itself",
        {
            "requests": _each(_app("http_requests_total")),
            "errors": _each(_app("http_requests_total", *(f',{label}=~"5.."' for label in STATUS))),
            "latency": _each(_app("http_request_duration_seconds_bucket")),
        },
        1.0,
        "count(" + _app("http_requests_total", "".join(f',{label}=""' for label in STATUS)) + ")",
    ),
    "ingress-nginx": _Exporter(
        "the counters of ingress-nginx",
        {
            "requests": _each(_nginx("nginx_ingress_controller_requests")),
            "errors": _each(_nginx("nginx_ingress_controller_requests", ',status=~"5.."')),
            "latency": _each(_nginx("nginx_ingress_controller_request_duration_seconds_bucket")),
        },
        1.0,
    ),
    "istio": _Exporter(
        "the counters of Istio",
        {
            "requests": _each(_istio("istio_requests_total")),
            "errors": _each(_istio("istio_requests_total", ',response_code=~"5.."')),
            "latency": _each(_istio("istio_request_duration_milliseconds_bucket")),
        },
        0.001,
    ),
}


def unknown(query: str) -> list[str]:
    """Unknown placeholders of a query. `$1` and the like are not placeholders."""
    return [name for name in Template(query).get_identifiers() if name not in PLACEHOLDERS]


class Counters:
    """The counters of one revision, monotonic: a counter that falls was restarted, a missing one keeps its last value.

    `queries` override the exporter's.
    """

    def __init__(
        self, app: str, namespace: str, revision: str, exporter: Exporter, queries: Mapping[Question, str]
    ) -> None:
        self.service = service = names.of_revision(app, revision)
        filled = {
            "app": app,
            "namespace": namespace,
            "revision": revision,
            "service": service,
            "pods": f"{service}-.+",
            "port": str(render.HTTP),
        }
        asked = {**EXPORTERS[exporter].queries, **queries}
        self.queries = {question: Template(query).safe_substitute(filled) for question, query in asked.items()}
        self._unit = EXPORTERS[exporter].unit
        unlabelled = "" if "errors" in queries else EXPORTERS[exporter].without_status
        self._without_status = Template(unlabelled).safe_substitute(filled)
        self._last: dict[_Series, float] = {}
        self._total: dict[_Series, float] = {}

    def read(self, ask: Callable[[str], Iterable[Sample]]) -> RequestCounts:
        """Current values, queried with PromQL. Raises MetricsUnavailable if it cannot distinguish errors."""
        if self._without_status and any(sample.value for sample in ask(self._without_status)):
            raise MetricsUnavailable(
                f"http_requests_total of {self.service} has none of the labels {', '.join(STATUS)}: errors would count "
                "as successes",
                "set the query `errors` of the target to one that selects the app's failed requests",
            )
        for question, query in self.queries.items():
            for sample in ask(query):
                series = question, frozenset(sample.labels.items())
                last = self._last.get(series, 0.0)
                added = sample.value - last if sample.value >= last else sample.value
                self._total[series] = self._total.get(series, 0.0) + added
                self._last[series] = sample.value
        requests = round(self._sum("requests"))
        return RequestCounts(
            requests=requests,
            errors=min(requests, round(self._sum("errors"))),  # the two queries run at different times
            latency=self._buckets(),
        )

    def _sum(self, question: Question) -> float:
        return sum(total for (asked, _), total in self._total.items() if asked == question)

    def _buckets(self) -> tuple[Bucket, ...]:
        """`le` is an inclusive upper bound: buckets are cumulative."""
        below: dict[float, float] = {0.0: 0.0}
        for (asked, labels), total in self._total.items():
            if asked == "latency" and (bound := dict(labels).get("le")) is not None:
                below[float(bound)] = below.get(float(bound), 0.0) + total
        found = []
        for (lower, less), (upper, more) in pairwise(sorted(below.items())):
            bounded = upper * self._unit if upper != float("inf") else 2 * lower * self._unit
            if round(more - less) > 0:
                found.append(Bucket(lower * self._unit, bounded, round(more - less)))
        return tuple(found)
