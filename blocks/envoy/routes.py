"""Build Envoy's routes from weights and header rules, and read them back. Pure functions.

A request is executed once: it is sent again only if it never reached an instance, unless the app asks for retries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from blocks.envoy.xds import PREVIEW, PUBLIC, TYPE
from headway.domain.revision import REVISION_HEADER, Http
from headway.domain.traffic import Traffic

__all__ = ["preview", "route_traffic", "routes"]

PREVIEW_HEADER = "x-headway-preview"
SESSION_COOKIE = "headway-session"
SESSION = 24 * 3600  # seconds a user stays with a revision, at most
IDEMPOTENT = "GET|HEAD|OPTIONS|PUT|DELETE"
NEVER_REACHED = "connect-failure,refused-stream,reset-before-request"
CONNECTION_RETRIES = 3


def routes(traffic: Traffic, known: Mapping[str, Http]) -> dict[str, Any]:
    """Routes: by revision header or cookie, by header rule, else by weight. Without traffic the response is 503.

    `known`: every revision, with its http settings. Revisions that share a route have those of the heaviest.
    """
    named = []
    for revision in known:
        # A cookie of the same name selects one revision.
        cookie = rf"(.*;\s*)?{REVISION_HEADER}={re.escape(revision)}\s*(;.*)?"
        named += _straight(known, revision, _header(REVISION_HEADER, exact=revision))
        named += _straight(known, revision, _header("cookie", safe_regex={"regex": cookie}))
    if traffic.preview:
        named += _straight(known, traffic.preview, _header(PREVIEW_HEADER, exact="true"))
    for rule in traffic.headers:
        named += _straight(known, rule.revision, _header(rule.name, exact=rule.value))
    # Envoy ignores this field but returns it in its configuration dump, from which the active traffic is read.
    told = traffic.model_dump(mode="json", exclude={"weights"})
    weighted = [{**route, "metadata": {"filter_metadata": {"headway": told}}} for route in _by_weight(traffic, known)]
    return _table(PUBLIC, [*named, *weighted])


def preview(traffic: Traffic, known: Mapping[str, Http]) -> dict[str, Any]:
    """Route of the preview port: one revision, or 503."""
    shown = traffic.preview
    return _table(PREVIEW, _straight(known, shown) if shown else [_nothing("no preview here")])


def _table(name: str, routes: list[dict[str, Any]]) -> dict[str, Any]:
    peer = {"key": "x-forwarded-for", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}
    return {
        "@type": f"{TYPE}config.route.v3.RouteConfiguration",
        "name": name,
        "request_headers_to_add": [{"header": peer, "append_action": "ADD_IF_ABSENT"}],
        "virtual_hosts": [{"name": "app", "domains": ["*"], "routes": routes}],
    }


def _header(name: str, **match: object) -> dict[str, Any]:
    return {"name": name, "string_match": match}


def _straight(known: Mapping[str, Http], revision: str, *headers: dict[str, Any]) -> list[dict[str, Any]]:
    answered = {"response_headers_to_add": [_says(revision)]}
    return [
        {
            "match": {"prefix": "/", "headers": [*headers, *kind]},
            **answered,
            **settings,
            "route": {"cluster": revision, **action},
        }
        for kind, settings, action in _kinds(known.get(revision, Http()))
    ]


def _nothing(words: str) -> dict[str, Any]:
    return {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": f"{words}\n"}}}


def _by_weight(traffic: Traffic, known: Mapping[str, Http]) -> list[dict[str, Any]]:
    if not traffic.weights:
        return [_nothing("nothing is live here")]
    heaviest = max(traffic.weights, key=lambda revision: traffic.weights[revision])
    return [
        {**route, **settings, "route": {**route["route"], **action}}
        for headers, settings, action in _kinds(known.get(heaviest, Http()))
        for route in (_sessions(traffic, headers) if traffic.sticky else [_weighted(traffic, headers)])
    ]


Kind = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]


def _kinds(http: Http) -> list[Kind]:
    """Requests that are treated differently, the most special first: header matches, route settings, route action."""
    settings = _body_limit(http.max_body) if http.max_body else {}
    limits = {"timeout": f"{http.timeout or 0:g}s", "idle_timeout": f"{http.idle_timeout or 0:g}s"}
    once = {**limits, "retry_policy": _retry(NEVER_REACHED, CONNECTION_RETRIES)}
    kinds: list[Kind] = [([], settings, once)]
    if http.retry:
        idempotent = _header(":method", safe_regex={"regex": IDEMPOTENT})
        retry = _retry(f"{NEVER_REACHED},reset,gateway-error", http.retry)
        kinds.insert(0, ([idempotent], settings, {**limits, "retry_policy": retry}))
    if http.timeout:  # a websocket is no response that ends
        upgrade = {"name": "upgrade", "present_match": True}
        kinds.insert(0, ([upgrade], settings, {**once, "timeout": "0s"}))
    return kinds


def _retry(on: str, times: int) -> dict[str, Any]:
    return {
        "retry_on": on,
        "num_retries": times,
        "host_selection_retry_max_attempts": 10,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }


def _body_limit(size: int) -> dict[str, Any]:
    """Answers 413 to a larger request body, without holding the body back."""
    limit = {"@type": f"{TYPE}extensions.filters.http.body_size_limit.v3.BodySizeLimit", "max_request_bytes": size}
    chain = {
        "@type": f"{TYPE}extensions.filters.http.filter_chain.v3.FilterChainConfigPerRoute",
        "filter_chain": {"filters": [{"name": "envoy.filters.http.body_size_limit", "typed_config": limit}]},
    }
    return {"typed_per_filter_config": {"envoy.filters.http.filter_chain": chain}}


def _weighted(traffic: Traffic, headers: list[dict[str, Any]]) -> dict[str, Any]:
    clusters = [
        {"name": revision, "weight": weight, "response_headers_to_add": [_says(revision)]}
        for revision, weight in traffic.weights.items()
        if weight
    ]
    return {"match": {"prefix": "/", "headers": headers}, "route": {"weighted_clusters": {"clusters": clusters}}}


def _sessions(traffic: Traffic, headers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Routes by a hash of the session. A session starts as the id of its first request, so that request is included.

    A hash below the canary's weight stays below it when the weight rises: no user moves back to stable.
    """
    has_session = _header("cookie", contains=f"{SESSION_COOKIE}=")
    starts = {
        "key": "set-cookie",
        "value": f"{SESSION_COOKIE}=%REQ(X-REQUEST-ID)%; Path=/; Max-Age={SESSION}; HttpOnly; SameSite=Lax",
    }
    returning = _weighted(traffic, [*headers, has_session])
    first = _weighted(traffic, headers)
    returning["route"]["hash_policy"] = [{"cookie": {"name": SESSION_COOKIE}}]
    first["route"]["hash_policy"] = [{"header": {"header_name": "x-request-id"}}]
    first["response_headers_to_add"] = [{"header": starts, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]
    for route in (returning, first):
        route["route"]["weighted_clusters"]["use_hash_policy"] = True
    return [returning, first]


def _says(revision: str) -> dict[str, Any]:
    return {"header": {"key": REVISION_HEADER, "value": revision}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def route_traffic(dump: Mapping[str, Any]) -> tuple[str, Traffic]:
    """The version and traffic in `/config_dump?resource=dynamic_route_configs`; ("", nothing) before the first."""
    for dynamic in dump.get("configs", []):
        if dynamic["route_config"]["name"] == PUBLIC:
            last = dynamic["route_config"]["virtual_hosts"][0]["routes"][-1]
            weighted = last.get("route", {}).get("weighted_clusters", {}).get("clusters", [])
            told = last.get("metadata", {}).get("filter_metadata", {}).get("headway", {})
            weights = {one["name"]: one["weight"] for one in weighted}
            return dynamic.get("version_info", ""), Traffic.model_validate({**told, "weights": weights})
    return "", Traffic()
