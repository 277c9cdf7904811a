"""The checklist: what people who run production ask of an app."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["GROUPS", "ITEMS", "Item", "expand"]


class Item(NamedTuple):
    """One question. `name` is how headway.yaml calls it."""

    name: str
    group: str
    title: str


ITEMS = {
    item.name: item
    for item in (
        Item("tests", "application", "its tests pass before every release"),
        Item("secrets", "application", "no secret is in the repository"),
        Item("health", "application", "its health says more than that it runs"),
        Item("logs", "application", "its logs are structured"),
        Item("errors", "application", "it answers nonsense with an error of the client's, not with a crash"),
        Item("image", "infrastructure", "its image can be built again: everything it is made of is pinned"),
        Item("configuration", "infrastructure", "what it has to be told is documented and validated"),
        Item("limits", "infrastructure", "it cannot take all of a machine"),
        Item("scaling", "infrastructure", "one instance may die without anybody noticing"),
        Item(
            "probes", "infrastructure", "it gets requests only when it can serve, and one that hangs is started again"
        ),
        Item("tls", "infrastructure", "it is served over TLS"),
        Item("metrics", "monitoring", "its error rate and latency are watched"),
        Item("alerts", "monitoring", "somebody is told when it is not well"),
        Item("log_aggregation", "monitoring", "its logs outlive its instances"),
        Item("uptime", "monitoring", "it is asked from outside whether it is up"),
        Item("vulnerabilities", "security", "its dependencies have no known vulnerabilities"),
        Item("cors", "security", "other sites may not use it in a user's name"),
        Item("rate_limits", "security", "nobody can ask without end"),
        Item("headers", "security", "browsers are told to be careful"),
        Item("authentication", "security", "what is not for everybody is not for everybody"),
        Item("previous", "rollback", "the version before can be had again"),
        Item("schema", "rollback", "the database lets the version before come back"),
        Item("rehearsed", "rollback", "the way back was tried with this very release"),
        Item("big_migration", "operations", "migrations were tried on as much data as production has"),
        Item("runbook", "operations", "somebody else can run it at 3 am"),
        Item("on_call", "operations", "somebody is called when it fails"),
    )
}

GROUPS = tuple(dict.fromkeys(item.group for item in ITEMS.values()))


def expand(names: Iterable[str]) -> list[str]:
    """Items that these items and groups mean, in the order of the list."""
    wanted = set(names)
    return [item.name for item in ITEMS.values() if {item.name, item.group} & wanted]
