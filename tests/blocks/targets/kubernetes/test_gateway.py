"""The kubernetes target with a Gateway or ingress-nginx: real requests to pods through Envoy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client

from blocks.registries.oci import Registry
from blocks.targets.kubernetes.api_client import Kind
from blocks.targets.kubernetes.routing import gateway_api as by_gateway
from blocks.targets.kubernetes.routing.ingress_nginx import ByIngress
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.errors import TargetError, UsageError
from headway.domain.plan import Plan, Route
from headway.domain.revision import Health, LaunchSpec, ProbeSettings, Revision
from headway.domain.traffic import HeaderRule, Traffic
from headway.rollout.load_generator import Load
from tests.e2e.conftest import APP, GOOD
from tests.standins.clusters import Borrowed, Namespace
from tests.standins.docker_engine import Engine
from tests.standins.gateway_controller import NAME, Gateway, gateway

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]
OLD, NEW = "1" * 40, "2" * 40
ASKED = 1000  # requests
SIGMAS = 5
BOTH = pytest.mark.parametrize("target", ["gateway", "ingress"], indirect=True)


@pytest.fixture
def front(namespace: Namespace, tmp_path: Path) -> Iterator[Gateway]:
    with gateway(namespace, tmp_path / "gateway") as made:
        yield made


@pytest.fixture(params=["gateway"])
def target(
    request: pytest.FixtureRequest, namespace: Namespace, front: Gateway, monkeypatch: pytest.MonkeyPatch
) -> KubernetesTarget:
    monkeypatch.setattr(ByIngress, "settle", 0.5)  # this controller is quicker
    by_gateway = request.param == "gateway"
    return KubernetesTarget(
        kubeconfig=namespace.kubeconfig,
        namespace=namespace.name,
        registry=Registry(host=namespace.registry, plain_http=True),
        gateway=front.name if by_gateway else None,
        ingress=None if by_gateway else NAME,
        url=front.url,
        preview_url=f"http://preview.example.com:{front.port}",
    )


@pytest.fixture
def up(target: KubernetesTarget, cluster: Borrowed, engine: Engine) -> Callable[[str], Revision]:
    spec = LaunchSpec(
        environment="staging",
        artifact=cluster.image(engine, {"app.py": GOOD + APP}),
        health=Health(startup=60, startup_probe=ProbeSettings(period=1, failures=1)),
        stop_grace=2,
        drain=2,
    )

    def launch(sha: str) -> Revision:
        revision = spec.revision("shop", sha)
        target.launch(revision, spec)
        end = time.monotonic() + 60
        while not target.ready(revision).ready:
            assert time.monotonic() < end
        return revision

    return launch


def answers(url: str, times: int = 1, **headers: str) -> Counter[str]:
    """The revisions that responded, or the status of an error."""
    with httpx.Client(trust_env=False, headers=headers) as asking:
        got = [asking.get(url) for _ in range(times)]
    return Counter(one.json()["version"] if one.is_success else str(one.status_code) for one in got)


@BOTH
def test_requests_are_split_by_weight_header_and_host(
    target: KubernetesTarget, front: Gateway, up: Callable[[str], Revision]
) -> None:
    old, new = up(OLD), up(NEW)
    rule = HeaderRule(name="x-beta", value="yes", revision=new.id)
    for weight in (5, 70):
        wanted = Traffic(weights={old.id: 100 - weight, new.id: weight}, headers=(rule,), preview=new.id)
        target.route("shop", wanted)
        assert target.observe("shop").traffic == wanted
        share = answers(front.url, ASKED)[NEW] / ASKED
        assert abs(share - weight / 100) < SIGMAS * (0.25 / ASKED) ** 0.5
        assert answers(front.url, 20, **{"x-beta": "yes"}) == {NEW: 20}
        assert answers(front.url, 20, host="preview.example.com") == {NEW: 20}
    target.route("shop", Traffic.all_to(old))
    target.retire(new)
    assert answers(front.url, 20, **{"x-beta": "yes"}) == {OLD: 20}
    assert answers(front.url, host="preview.example.com") == {"503": 1}
    target.route("shop", Traffic())
    assert answers(front.url) == {"503": 1}


@BOTH
def test_switch_drops_no_request(target: KubernetesTarget, front: Gateway, up: Callable[[str], Revision]) -> None:
    old, new = up(OLD), up(NEW)
    target.route("shop", Traffic.all_to(old))
    with Load(front.url, rate=100) as load:
        for weight in (5, 100, 0, 50, 100):
            shares = {new.id: weight, old.id: 100 - weight}
            target.route("shop", Traffic(weights={one: share for one, share in shares.items() if share}))
        target.retire(old)
    assert load.sent > ASKED
    assert (load.failed, load.failures) == (0, [])
    assert answers(front.url, 20) == {NEW: 20}


def test_refusal_of_the_gateway_is_quoted(
    target: KubernetesTarget, front: Gateway, up: Callable[[str], Revision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.targets.kubernetes.routing.router.IN_FORCE", 5.0)
    old = up(OLD)
    front.refuses = "NotAllowedByListeners"
    with pytest.raises(TargetError, match="Accepted is False: NotAllowedByListeners"):
        target.route("shop", Traffic.all_to(old))
    front.refuses = ""
    target.route("shop", Traffic.all_to(old))
    assert answers(front.url) == {OLD: 1}


def test_foreign_route_is_not_changed(
    target: KubernetesTarget, namespace: Namespace, front: Gateway, up: Callable[[str], Revision]
) -> None:
    old = up(OLD)
    theirs = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "shop"},
        "spec": {"parentRefs": [{"name": "theirs"}]},
    }
    where = ("gateway.networking.k8s.io", "v1", namespace.name, "httproutes")
    client.CustomObjectsApi(namespace.api).create_namespaced_custom_object(*where, theirs)
    with pytest.raises(TargetError, match=r"the HTTPRoute shop in namespace .* is not Headway's"):
        target.route("shop", Traffic.all_to(old))
    found: Any = client.CustomObjectsApi(namespace.api).get_namespaced_custom_object(*where, "shop")
    assert found["spec"]["parentRefs"][0]["name"] == "theirs"


def test_unsupported_traffic_is_refused_at_plan_time(target: KubernetesTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    sticky = Traffic(weights={"1111111-aaaaaa": 95, "2222222-bbbbbb": 5}, sticky=True)
    plan = Plan(strategy="canary", new="2222222-bbbbbb", old="1111111-aaaaaa", steps=(Route(traffic=sticky),))
    with pytest.raises(UsageError, match="session persistence"):
        target.check("shop", plan)
    monkeypatch.setattr(by_gateway, "HTTP_ROUTE", Kind("gateway.networking.k8s.io/v1", "NobodysRoute"))
    with pytest.raises(TargetError, match="NobodysRoute shop: the cluster has no such kind of object"):
        target.check("shop", plan)
