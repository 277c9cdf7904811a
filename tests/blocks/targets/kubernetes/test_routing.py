"""Traffic is translated to objects and read back; the cluster's status of them is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as some

from blocks.targets.kubernetes import labels, render, replica_weights
from blocks.targets.kubernetes.routing import ByGateway, ByIngress, ByPods, Routing
from blocks.targets.kubernetes.routing.base import Gone, Host
from headway.domain.plan import Launch, Plan, Retire, Route
from headway.domain.traffic import Capability, HeaderRule, Traffic
from tests.blocks.targets.kubernetes.test_render import RULES, VERSIONS

OLD, NEW = "1111111-aaaaaa", "2222222-bbbbbb"
GATEWAY = ByGateway(
    gateway="infra/public/https", url="https://{app}.example.com", preview_url="https://next.{namespace}.example.com/"
)
INGRESS = ByIngress(
    ingress_class="nginx",
    url="https://{app}.example.com",
    preview_url="https://next.example.com",
    certificate="{app}-tls",
)
BETA = HeaderRule(name="x-beta", value="yes", revision=NEW)


def sent(
    routing: Routing, traffic: Traffic, found: Sequence[dict[str, Any]] = ()
) -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name, as the last of each is."""
    things = routing.objects("shop", "production", traffic, RULES, found)
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things if not isinstance(thing, Gone)}


def read(routing: Routing, traffic: Traffic) -> Traffic:
    things = sent(routing, traffic)
    found = [things[kind.kind, name] for kind, name in routing.reads("shop") if (kind.kind, name) in things]
    return routing.traffic("shop", things["Service", "shop"], {}, found)


@given(some.integers(0, 100), some.booleans())
def test_gateway_api_expresses_any_weights(weight: int, ruled: bool) -> None:
    weights = {one: share for one, share in ((OLD, 100 - weight), (NEW, weight)) if share}
    wanted = Traffic(weights=weights, headers=(BETA,) if ruled else ())
    assert read(GATEWAY, wanted) == wanted


def test_route_names_gateway_host_and_one_service_per_revision() -> None:
    things = sent(GATEWAY, Traffic(weights={OLD: 95, NEW: 5}, headers=(BETA,)))
    assert list(things) == [
        ("Service", f"shop-{OLD}"),
        ("Service", f"shop-{NEW}"),
        ("HTTPRoute", "shop"),
        ("Service", "shop"),
    ]
    spec = things["HTTPRoute", "shop"]["spec"]
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "public"}
    assert spec["parentRefs"] == [gateway | {"sectionName": "https"}]
    assert spec["hostnames"] == ["shop.example.com"]
    named, weighted = spec["rules"]
    assert named["matches"][0]["headers"] == [{"type": "Exact", "name": "x-beta", "value": "yes"}]
    assert [(one["name"], one["weight"]) for one in named["backendRefs"]] == [(f"shop-{NEW}", 100)]
    assert [(one["name"], one["weight"]) for one in weighted["backendRefs"]] == [
        (f"shop-{OLD}", 95),
        (f"shop-{NEW}", 5),
    ]
    assert things["Service", f"shop-{NEW}"]["spec"]["selector"] == {labels.APP: "shop", labels.REVISION: NEW}


def test_cluster_service_selects_the_revision_with_most_traffic() -> None:
    for wanted, chosen in ((Traffic(weights={OLD: 95, NEW: 5}), OLD), (Traffic.all_to(NEW), NEW), (Traffic(), None)):
        assert render.selected(sent(GATEWAY, wanted)["Service", "shop"]) == chosen


def test_without_traffic_the_route_has_a_service_without_endpoints() -> None:
    things = sent(GATEWAY, Traffic())
    (rule,) = things["HTTPRoute", "shop"]["spec"]["rules"]
    assert [one["name"] for one in rule["backendRefs"]] == ["shop"]
    assert things["Service", "shop"]["spec"]["selector"][labels.REVISION] == "none"


def test_preview_has_its_own_host() -> None:
    (route,) = GATEWAY.preview("shop", "production", RULES)
    assert route["spec"]["hostnames"] == ["next.shops.example.com"]
    assert [one["name"] for one in route["spec"]["rules"][0]["backendRefs"]] == ["shop-preview"]
    assert GATEWAY.model_copy(update={"preview_url": None}).preview("shop", "production", RULES) == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://shop.example.com", Host(name="shop.example.com", path="/")),
        ("https://example.com:8443/{app}", Host(name="example.com", path="/shop")),
        ("http://10.1.2.3:8080", Host(name=None, path="/")),
        ("http://[::1]/", Host(name=None, path="/")),
    ],
)
def test_url_selects_the_requests_of_the_app(url: str, host: Host) -> None:
    assert Host.of(url, "shop", "production", "shops") == host


def test_target_with_a_new_gateway_reads_the_live_revision() -> None:
    service = sent(ByPods(), Traffic.all_to(OLD))["Service", "shop"]
    assert GATEWAY.traffic("shop", service, {}, []) == Traffic.all_to(OLD)


def test_foreign_weights_are_normalized() -> None:
    route = sent(GATEWAY, Traffic(weights={OLD: 95, NEW: 5}))["HTTPRoute", "shop"]
    for one in route["spec"]["rules"][0]["backendRefs"]:
        one["weight"] = 1
    assert GATEWAY.traffic("shop", None, {}, [route]).weights == {OLD: 50, NEW: 50}


def told(*conditions: tuple[str, str, int], gateway: str = "public") -> dict[str, Any]:
    route = sent(GATEWAY, Traffic.all_to(OLD))["HTTPRoute", "shop"]
    parent = route["spec"]["parentRefs"][0] | {"name": gateway}
    said = [
        {"type": kind, "status": status, "observedGeneration": seen, "reason": "Because", "message": "of this"}
        for kind, status, seen in conditions
    ]
    status = {"parents": [{"parentRef": parent, "controllerName": "acme/gateway", "conditions": said}]}
    return {**route, "metadata": {**route["metadata"], "generation": 7}, "status": status}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (told(("Accepted", "True", 7), ("ResolvedRefs", "True", 7)), ""),
        (told(("Accepted", "True", 6), ("ResolvedRefs", "True", 7)), "acme/gateway has not looked at it yet"),
        (told(("Accepted", "True", 7)), "acme/gateway has not looked at it yet"),
        (told(("Accepted", "False", 7)), "Accepted is False: Because: of this"),
        (
            told(("Accepted", "True", 7), ("ResolvedRefs", "False", 7)),
            "ResolvedRefs is False: Because: of this",
        ),
        (
            told(("Accepted", "True", 7), gateway="other"),
            "no controller has taken it up: is there a Gateway infra/public/https?",
        ),
    ],
)
def test_route_is_ready_once_accepted_for_this_generation(found: dict[str, Any], why: str) -> None:
    assert GATEWAY.pending(found) == why


def test_each_router_reports_its_limits() -> None:
    sticky, ruled = Traffic(weights={OLD: 95, NEW: 5}, sticky=True), Traffic(weights={OLD: 100}, headers=(BETA,))
    assert "experimental" in str(GATEWAY.refusal(sticky))
    assert GATEWAY.refusal(ruled) is None
    assert Capability.HEADER_ROUTING in GATEWAY.capabilities
    assert "no headers" in str(ByPods().refusal(ruled))
    assert Capability.HEADER_ROUTING not in ByPods.capabilities


def test_inexact_replica_weights_are_reported_at_plan_time() -> None:
    plan = Plan(
        strategy="canary",
        new=NEW,
        old=OLD,
        steps=(
            Launch(revision=NEW, instances=3),
            Route(traffic=Traffic(weights={NEW: 5, OLD: 95})),
            Route(traffic=Traffic(weights={NEW: 50, OLD: 50})),
            Route(traffic=Traffic.all_to(NEW)),
            Retire(revision=OLD),
        ),
    )
    assert replica_weights.remarks(plan, {OLD: 3}) == (
        f"{NEW} 5 %, {OLD} 95 %: the nearest that 6 pods can do is {NEW} 25 %, {OLD} 75 %",
    )
    assert GATEWAY.remarks(plan, {OLD: 3}) == ()


def moved(wanted: Sequence[Traffic]) -> list[Traffic]:
    """Every traffic state on the way, after each object, with ingress-nginx."""
    there: dict[str, dict[str, Any]] = {}
    seen = []
    for traffic in wanted:
        for thing in INGRESS.objects("shop", "production", traffic, RULES, list(there.values())):
            if isinstance(thing, Gone):
                there.pop(thing.name, None)
                seen.append(INGRESS.traffic("shop", None, {}, list(there.values())))
            elif thing["kind"] == "Ingress":
                there[thing["metadata"]["name"]] = thing
                seen.append(INGRESS.traffic("shop", None, {}, list(there.values())))
        assert seen[-1] == traffic
    return [one for number, one in enumerate(seen) if number == 0 or one != seen[number - 1]]


TRAFFIC = some.one_of(
    some.just(Traffic()),
    some.builds(lambda one: Traffic.all_to(one), some.sampled_from([OLD, NEW, "3333333-cccccc"])),
    some.builds(
        lambda weight, ruled: Traffic(weights={OLD: 100 - weight, NEW: weight}, headers=(BETA,) if ruled else ()),
        some.integers(1, 99),
        some.booleans(),
    ),
    some.just(Traffic(weights={OLD: 100}, headers=(BETA,))),
)


@given(some.lists(TRAFFIC, min_size=1, max_size=6))
def test_ingress_nginx_reaches_the_wanted_traffic_from_any_state(wanted: list[Traffic]) -> None:
    moved(wanted)


def test_ingress_nginx_has_no_wrong_intermediate_state() -> None:
    old, few, half, new = (
        Traffic(weights=weights) for weights in ({OLD: 100}, {OLD: 95, NEW: 5}, {OLD: 50, NEW: 50}, {NEW: 100})
    )
    for way in ([old, few, half, new], [old, half, old], [old, new, old], [old, few, new, old]):
        assert moved(way) == way


def test_canary_header_is_removed_with_the_canary() -> None:
    shown, old = Traffic(weights={OLD: 99, NEW: 1}, headers=(BETA,)), Traffic.all_to(OLD)
    assert moved([old, shown, Traffic.all_to(NEW)])[-1] == Traffic.all_to(NEW)
    assert moved([old, shown, old])[-1] == old


def test_ingress_nginx_annotations() -> None:
    before = sent(INGRESS, Traffic.all_to(OLD))
    found = [thing for (kind, _), thing in before.items() if kind == "Ingress"]
    things = sent(INGRESS, Traffic(weights={OLD: 95, NEW: 5}, headers=(BETA,)), found)
    main, canary = things["Ingress", "shop"], things["Ingress", "shop-canary"]
    assert "annotations" not in main["metadata"]
    assert canary["metadata"]["annotations"] == {
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "5",
        "nginx.ingress.kubernetes.io/canary-by-header": "x-beta",
        "nginx.ingress.kubernetes.io/canary-by-header-value": "yes",
    }
    for ingress, service in ((main, f"shop-{OLD}"), (canary, f"shop-{NEW}")):
        (rule,) = ingress["spec"]["rules"]
        assert (ingress["spec"]["ingressClassName"], rule["host"]) == ("nginx", "shop.example.com")
        assert rule["http"]["paths"][0]["backend"]["service"] == {"name": service, "port": {"number": 80}}
        assert ingress["spec"]["tls"] == [{"hosts": ["shop.example.com"], "secretName": "shop-tls"}]
    (preview,) = INGRESS.preview("shop", "production", RULES)
    assert preview["spec"]["rules"][0]["host"] == "next.example.com"


def test_ingress_nginx_supports_one_header_one_canary_and_no_sessions() -> None:
    other = HeaderRule(name="x-staff", value="yes", revision=NEW)
    assert "one header" in str(INGRESS.refusal(Traffic(weights={OLD: 100}, headers=(BETA, other))))
    three = Traffic(weights={OLD: 50, NEW: 30, "3333333-cccccc": 20})
    assert "one canary" in str(INGRESS.refusal(three))
    assert "users to pods" in str(INGRESS.refusal(Traffic(weights={OLD: 100}, sticky=True)))
    assert INGRESS.refusal(Traffic(weights={OLD: 95, NEW: 5}, headers=(BETA,))) is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("routing", [ByPods(), GATEWAY, INGRESS], ids=["pods", "gateway", "ingress"])
def test_routing_objects_are_valid_kubernetes_objects(routing: Routing, version: str) -> None:
    wanted = Traffic(weights={OLD: 95, NEW: 5})
    for thing in (*sent(routing, wanted).values(), *routing.preview("shop", "production", RULES)):
        if thing["kind"] != "HTTPRoute":  # no kind of Kubernetes' own
            kubernetes_validate.validate(thing, version, strict=True)
