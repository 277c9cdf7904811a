"""Request counts of a revision from common exporters, read from a real Prometheus."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.metrics.prometheus import Prometheus
from blocks.targets.kubernetes import promql
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.errors import MetricsUnavailable, TargetError
from headway.domain.measurements import Bucket, RequestCounts
from headway.domain.revision import Artifact, LaunchSpec
from tests.contracts.test_metric_source import app, running
from tests.standins import kubernetes_api

DIGEST = "sha256:" + "a" * 64
OLD, NEW = "1111111-aaaaaa", "2222222-bbbbbb"
POD, ANOTHER = f"shop-{NEW}-5d9c7b7c9f-x2x4k", f"shop-{OLD}-5d9c7b7c9f-abcde"


def _app(pod: str, requests: int, errors: int) -> dict[str, float]:
    of = f'namespace="shops",pod="{pod}"'
    return {
        f'http_requests_total{{{of},method="GET",code="200"}}': requests - errors,
        f'http_requests_total{{{of},method="GET",code="503"}}': errors,
        f'http_request_duration_seconds_bucket{{{of},le="0.1"}}': requests - errors,
        f'http_request_duration_seconds_bucket{{{of},le="+Inf"}}': requests,
    }


def _nginx(of: str, requests: int, errors: int) -> dict[str, float]:
    name = "nginx_ingress_controller"
    return {
        f'{name}_requests{{{of},status="200"}}': requests - errors,
        f'{name}_requests{{{of},status="500"}}': errors,
        f'{name}_request_duration_seconds_bucket{{{of},status="200",le="0.1"}}': requests - errors,
        f'{name}_request_duration_seconds_bucket{{{of},status="200",le="+Inf"}}': requests - errors,
        f'{name}_request_duration_seconds_bucket{{{of},status="500",le="+Inf"}}': errors,
    }


def _istio(revision: str, requests: int, errors: int) -> dict[str, float]:
    of = f'destination_workload="shop-{revision}",destination_workload_namespace="shops"'
    found: dict[str, float] = {}
    for reporter in ("source", "destination"):
        side = f'{of},reporter="{reporter}"'
        found |= {
            f'istio_requests_total{{{side},response_code="200"}}': requests - errors,
            f'istio_requests_total{{{side},response_code="502"}}': errors,
            f'istio_request_duration_milliseconds_bucket{{{side},le="100"}}': requests - errors,
            f'istio_request_duration_milliseconds_bucket{{{side},le="+Inf"}}': requests,
        }
    return found


CANARY = f'namespace="shops",service="shop-{OLD}",canary="shops-shop-{NEW}-80"'
STABLE = f'exported_namespace="shops",exported_service="shop-{NEW}"'
OTHERS = f'exported_namespace="shops",exported_service="shop-{OLD}"'
SAID: dict[str, tuple[promql.Exporter, dict[str, float]]] = {
    "app": ("app", _app(POD, 40, 2) | _app(ANOTHER, 900, 0)),
    "a canary of ingress-nginx": ("ingress-nginx", _nginx(CANARY, 40, 2) | _nginx(OTHERS, 900, 0)),
    "stable of ingress-nginx": ("ingress-nginx", _nginx(STABLE, 40, 2) | _nginx(OTHERS, 900, 0)),
    "istio": ("istio", _istio(NEW, 40, 2) | _istio(OLD, 900, 0)),
}


@pytest.fixture(scope="module")
def exposed() -> dict[str, float]:
    return {"nobody_is_asked_for": 1.0}


@pytest.fixture(scope="module")
def prometheus(exposed: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with app(exposed) as port, running(tmp_path_factory.mktemp("prometheus"), port) as url:
        yield Prometheus(url=url)


@pytest.mark.parametrize("name", SAID)
def test_common_exporters_are_supported(name: str, prometheus: Prometheus, exposed: dict[str, float]) -> None:
    exporter, said = SAID[name]
    exposed.clear()
    exposed.update(said)
    counted = RequestCounts(requests=40, errors=2, latency=(Bucket(0.0, 0.1, 38), Bucket(0.1, 0.2, 2)))
    until(lambda: promql.Counters("shop", "shops", NEW, exporter, {}).read(prometheus.series) == counted)


def test_nan_is_no_data(prometheus: Prometheus, exposed: dict[str, float]) -> None:
    exposed["broken_total"] = float("nan")
    exposed["whole_total"] = 3
    until(lambda: [one.value for one in prometheus.series('{__name__=~"broken_total|whole_total"}')] == [3])
    counters = promql.Counters("shop", "shops", NEW, "app", {"requests": "broken_total", "errors": "missing_total"})
    assert counters.read(prometheus.series).requests == 0


@pytest.mark.parametrize(
    ("query", "words"), [("sum(", "refuses sum("), ("scalar(up)", "gives a scalar"), ("up[1m]", "gives a matrix")]
)
def test_query_without_a_series_is_an_error(query: str, words: str, prometheus: Prometheus) -> None:
    with pytest.raises(MetricsUnavailable, match=re.escape(words)):
        prometheus.series(query)


def test_target_fills_in_its_placeholders() -> None:
    with pytest.raises(ValidationError, match=r"requests: \$pod is none of app, namespace, revision"):
        KubernetesTarget(queries={"requests": 'x{pod="$pod"}'})


def test_target_reads_counts_of_each_revision_from_prometheus(
    prometheus: Prometheus, exposed: dict[str, float], tmp_path: Path
) -> None:
    artifact = Artifact(kind="image", digest=DIGEST, location=f"127.0.0.1:1/shop@{DIGEST}", size=1)
    spec = LaunchSpec(environment="staging", artifact=artifact)
    with kubernetes_api.serving(tmp_path) as (_, kubeconfig):
        place: dict[str, Any] = {"kubeconfig": kubeconfig, "namespace": "shops", "settle": 0}
        target = KubernetesTarget(prometheus=prometheus, **place)
        old, new = (spec.revision("shop", number * 40) for number in "12")
        for revision, requests, errors in ((old, 900, 0), (new, 40, 2)):
            target.launch(revision, spec)
            (pod,) = target.observe("shop").instances[revision.id]
            exposed |= _app(pod.name, requests, errors)

        def counted() -> dict[str, tuple[int, int]]:
            return {one: (each.requests, each.errors) for one, each in target.measure("shop").counts.items()}

        until(lambda: counted() == {old.id: (900, 0), new.id: (40, 2)})
        nobody = KubernetesTarget(prometheus=Prometheus(url="http://127.0.0.1:1"), **place)
        with pytest.raises(TargetError, match="shop: "):
            nobody.measure("shop")


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
