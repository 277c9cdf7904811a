"""Items of the production readiness checklist."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["GROUPS", "ITEMS", "Item", "expand"]


class Item(NamedTuple):
    """An item of the checklist. `name` is its name in headway.yaml."""

    name: str
    group: str
    title: str


ITEMS = {
    item.name: item
    for item in (
        Item("tests", "application", "its tests pass before every release"),
        Item("secrets", "application", "the repository contains no secrets"),
        Item("health", "application", "its health endpoint reports its dependencies"),
        Item("logs", "application", "its logs are structured"),
        Item("errors", "application", "it answers invalid requests with a 4xx status"),
        Item("image", "infrastructure", "its image can be rebuilt: all versions are pinned"),
        Item("configuration", "infrastructure", "its configuration is documented and validated"),
        Item("limits", "infrastructure", "its CPU and memory are limited"),
        Item("scaling", "infrastructure", "it runs several instances, so that one may fail"),
        Item("probes", "infrastructure", "instances get requests only when ready, and are restarted when they hang"),
        Item("tls", "infrastructure", "it is served over TLS"),
        Item("metrics", "monitoring", "its error rate and latency are monitored"),
        Item("alerts", "monitoring", "alerts are sent when it fails"),
        Item("log_aggregation", "monitoring", "its logs are kept after its instances end"),
        Item("uptime", "monitoring", "its availability is checked from outside"),
        Item("vulnerabilities", "security", "its dependencies have no known vulnerabilities"),
        Item("cors", "security", "CORS does not allow arbitrary origins with credentials"),
        Item("rate_limits", "security", "requests are rate limited"),
        Item("headers", "security", "it sends security headers"),
        Item("authentication", "security", "protected endpoints require authentication"),
        Item("previous", "rollback", "the previous version's artifact is available"),
        Item("schema", "rollback", "the previous version works with the database schema"),
        Item("rehearsed", "rollback", "the rollback was rehearsed with this release"),
        Item("big_migration", "operations", "migrations were tested with production-sized data"),
        Item("runbook", "operations", "a runbook describes how to operate it"),
        Item("on_call", "operations", "an on-call rota exists"),
    )
}

GROUPS = tuple(dict.fromkeys(item.group for item in ITEMS.values()))


def expand(names: Iterable[str]) -> list[str]:
    """The items among these names, and those of the groups among them, in the order of the list."""
    wanted = set(names)
    return [item.name for item in ITEMS.values() if {item.name, item.group} & wanted]
