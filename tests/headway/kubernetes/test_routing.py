"""Wanted traffic becomes objects, and is read from them again; what a cluster says of them is understood."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headway.kubernetes import names, render, shares
from headway.kubernetes.routing import ByGateway, ByPods, Routing
from headway.kubernetes.routing.routing import Host
from headway.model import Capability, HeaderRule, Launch, Plan, Retire, Route, Traffic
from tests.headway.kubernetes.test_render import RULES

OLD, NEW = "1111111-aaaaaa", "2222222-bbbbbb"
GATEWAY = ByGateway(
    gateway="infra/public/https", url="https://{app}.example.com", preview_url="https://next.{namespace}.example.com/"
)
BETA = HeaderRule(name="x-beta", value="yes", revision=NEW)


def sent(routing: Routing, traffic: Traffic) -> dict[tuple[str, str], dict[str, Any]]:
    things = routing.objects("shop", "production", traffic, RULES)
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


def read(routing: Routing, traffic: Traffic) -> Traffic:
    things = sent(routing, traffic)
    found = [things[kind.kind, name] for kind, name in routing.reads("shop") if (kind.kind, name) in things]
    return routing.traffic("shop", things["Service", "shop"], {}, found)


@given(some.integers(0, 100), some.booleans())
def test_a_gateway_does_exactly_what_is_wanted(weight: int, ruled: bool) -> None:
    weights = {one: share for one, share in ((OLD, 100 - weight), (NEW, weight)) if share}
    wanted = Traffic(weights=weights, headers=(BETA,) if ruled else ())
    assert read(GATEWAY, wanted) == wanted


def test_a_route_names_its_gateway_its_host_and_a_service_a_revision() -> None:
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
    assert things["Service", f"shop-{NEW}"]["spec"]["selector"] == {names.APP: "shop", names.REVISION: NEW}


def test_inside_the_cluster_the_service_is_what_most_get_outside() -> None:
    for wanted, chosen in ((Traffic(weights={OLD: 95, NEW: 5}), OLD), (Traffic.all_to(NEW), NEW), (Traffic(), None)):
        assert render.selected(sent(GATEWAY, wanted)["Service", "shop"]) == chosen


def test_without_traffic_the_route_leads_to_a_service_that_nobody_is_behind() -> None:
    things = sent(GATEWAY, Traffic())
    (rule,) = things["HTTPRoute", "shop"]["spec"]["rules"]
    assert [one["name"] for one in rule["backendRefs"]] == ["shop"]
    assert things["Service", "shop"]["spec"]["selector"][names.REVISION] == "none"


def test_the_preview_has_a_host_of_its_own_where_it_has_a_url() -> None:
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
def test_a_url_says_whose_requests_are_the_apps(url: str, host: Host) -> None:
    assert Host.of(url, "shop", "production", "shops") == host


def test_a_target_that_has_just_been_given_a_gateway_knows_what_is_live() -> None:
    service = sent(ByPods(), Traffic.all_to(OLD))["Service", "shop"]
    assert GATEWAY.traffic("shop", service, {}, []) == Traffic.all_to(OLD)


def test_weights_that_somebody_else_wrote_are_read_as_shares() -> None:
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
def test_a_route_is_in_force_when_its_gateway_says_so_of_this_generation(found: dict[str, Any], why: str) -> None:
    assert GATEWAY.pending(found) == why


def test_each_way_says_what_it_cannot_do() -> None:
    sticky, ruled = Traffic(weights={OLD: 95, NEW: 5}, sticky=True), Traffic(weights={OLD: 100}, headers=(BETA,))
    assert "experimental" in str(GATEWAY.cannot(sticky))
    assert GATEWAY.cannot(ruled) is None
    assert Capability.HEADER_ROUTING in GATEWAY.capabilities
    assert "no headers" in str(ByPods().cannot(ruled))
    assert Capability.HEADER_ROUTING not in ByPods.capabilities


def test_weights_that_pods_cannot_do_are_said_before_they_are_needed() -> None:
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
    assert shares.remarks(plan, {OLD: 3}) == (
        f"{NEW} 5 %, {OLD} 95 %: the nearest that 6 pods can do is {NEW} 25 %, {OLD} 75 %",
    )
    assert GATEWAY.remarks(plan, {OLD: 3}) == ()
