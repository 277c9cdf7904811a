"""Production readiness checks of Kubernetes objects: those of Headway and the app's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway import config
from headway.domain.readiness import Finding
from headway.policy.readiness import repository_checks
from tests.standins.repositories import Repository

SETTINGS = """
app: shop
build: {image: ghcr.io/acme/shop}
environments:
  production: {target: kubernetes/production%s}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: %s
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: web
          image: ghcr.io/acme/shop
          ports: [{containerPort: 3000}]
          resources: {requests: {cpu: 100m}, limits: {memory: 256Mi}}
%s
"""
BUDGET = """---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: mine}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: shop}}}
"""
SCALER = """---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker}
spec: {minReplicas: 1, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}}
"""
RULE = """---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: shop}
spec: {groups: [{name: shop, rules: [%s]}]}
"""
MONITORS = """---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: shop}
spec: {}
---
apiVersion: monitoring.coreos.com/v1
kind: Probe
metadata: {name: shop-up}
spec: {}
"""


def examined(place: Path, more: str = "", *manifests: str) -> dict[str, Finding]:
    made = Repository(place / "repo")
    own = {"k8s__shop_dot_yaml": "".join(manifests)} if manifests else {}
    made.commit(headway_dot_yaml=SETTINGS % (f", manifests: k8s{more}" if manifests else more), **own)
    return repository_checks.examine(made.path, config.load(made.path), "production")


def ingress(tls: str) -> str:
    return (
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: shop}\n"
        f"spec: {{rules: [{{host: shop.example.com}}, {{host: example.com}}]{tls}}}\n"
    )


def gateway(protocol: str) -> str:
    return (
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: shop}\n"
        f"spec: {{gatewayClassName: any, listeners: [{{name: web, port: 443, protocol: {protocol}}}]}}\n"
    )


def test_generated_objects_have_limits_and_probes(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert found["limits"] == (True, "all 1 containers")
    assert found["probes"] == (True, "startup, readiness and liveness")
    assert found["scaling"] == (False, "one pod")
    assert not {"tls", "alerts", "uptime"} & found.keys()  # they may be somewhere else
    assert found["metrics"] == (False, "strategy rolling without an analysis")


@pytest.mark.parametrize("instances", ["3", "{min: 3, max: 9}"])
def test_several_pods_with_a_disruption_budget_pass(tmp_path: Path, instances: str) -> None:
    assert examined(tmp_path, f", instances: {instances}")["scaling"] == (True, "3 pods")


@pytest.mark.parametrize(
    ("replicas", "others", "wanted"),
    [
        ("1", BUDGET, (False, "one pod")),
        ("2", "", (True, "2 pods")),  # the budget is Headway's
        ("2", BUDGET, (True, "2 pods")),
    ],
)
def test_replicas_are_read_from_the_manifests(
    tmp_path: Path, replicas: str, others: str, wanted: tuple[bool, str]
) -> None:
    assert examined(tmp_path, "", DEPLOYMENT % (replicas, ""), others)["scaling"] == wanted


def test_every_container_needs_limits(tmp_path: Path) -> None:
    greedy = (
        "        - {name: proxy, image: envoy}\n        - {name: idle, image: x, resources: {limits: {memory: 1Mi}}}\n"
    )
    assert examined(tmp_path, "", DEPLOYMENT % ("1", greedy))["limits"] == (
        False,
        "Deployment shop: proxy: no limit of memory and no cpu; Deployment shop: idle: no cpu",
    )


@pytest.mark.parametrize(
    ("thing", "wanted"),
    [
        (ingress(""), (False, "Ingress shop: no tls for shop.example.com, example.com")),
        (ingress(", tls: [{hosts: [shop.example.com]}]"), (False, "Ingress shop: no tls for example.com")),
        (ingress(", tls: [{hosts: ['*.example.com', example.com]}]"), (True, "Ingress shop: tls")),
        (ingress(", tls: [{secretName: for-all}]"), (True, "Ingress shop: tls")),
        (gateway("HTTPS"), (True, "Gateway shop: HTTPS")),
        (gateway("HTTP"), (False, "Gateway shop: no HTTPS listener")),
    ],
)
def test_tls_is_read_from_the_apps_own_ingress(tmp_path: Path, thing: str, wanted: tuple[bool, str]) -> None:
    assert examined(tmp_path, "", DEPLOYMENT % ("1", ""), thing)["tls"] == wanted


def test_alerts_and_monitors_are_found(tmp_path: Path) -> None:
    alerts = RULE % "{record: a, expr: b}, {alert: ShopDown, expr: up == 0}"
    found = examined(tmp_path, "", DEPLOYMENT % ("1", ""), alerts, MONITORS)
    assert found["alerts"] == (True, "alerts: ShopDown")
    assert found["metrics"] == (True, "ServiceMonitor shop")
    assert found["uptime"] == (True, "Probe shop-up")


def test_rules_without_an_alert_do_not_count(tmp_path: Path) -> None:
    found = examined(tmp_path, "", DEPLOYMENT % ("1", ""), RULE % "{record: a, expr: b}")
    assert found["alerts"] == (False, "PrometheusRule without an alert")
