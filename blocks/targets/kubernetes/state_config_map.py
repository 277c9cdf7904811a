"""State of an app in a ConfigMap on the cluster: fencing token and launched revisions."""

from __future__ import annotations

import json
from collections.abc import Callable

from pydantic import Field

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.api_client import CONFIG_MAP, Cluster, Object
from blocks.targets.kubernetes.owned_objects import Key
from headway.domain.base import Frozen
from headway.domain.errors import TargetError

__all__ = ["State", "change", "read"]

WRITES = 10  # attempts of a write after conflicts
REMEMBERED = 100  # revisions in the history


class State(Frozen):
    token: int = Field(default=0, description="the highest fencing token that was claimed")
    carried: tuple[str, ...] = Field(
        default=(), description="the way here: revisions that had all the traffic, the last one first"
    )
    belongings: tuple[Key, ...] = Field(default=(), description="the app's own objects that were ever applied")

    def carrying(self, revision: str) -> State:
        """The state after this revision got all the traffic.

        A revision in the history means a rollback: newer ones are removed, so that no rollback returns to them.
        """
        known = revision in self.carried
        before = self.carried[self.carried.index(revision) + 1 :] if known else self.carried
        return self.model_copy(update={"carried": (revision, *before)[:REMEMBERED]})


def read(cluster: Cluster, app: str) -> State:
    """Read the state; empty for an app that was never launched."""
    return _of(cluster.get(CONFIG_MAP, names.state(app)))


def change(cluster: Cluster, app: str, changed: Callable[[State], State]) -> None:
    """Read, change and write; retry after a conflict. Raises TargetError after too many conflicts."""
    for _ in range(WRITES):
        found = cluster.get(CONFIG_MAP, names.state(app))
        before = _of(found)
        after = changed(before)
        if found is not None and after == before:
            return
        data = {key: json.dumps(value) for key, value in after.model_dump(mode="json").items()}
        if found is None:
            labels = {names.APP: app, "app.kubernetes.io/managed-by": names.MANAGER}
            metadata = {"name": names.state(app), "namespace": cluster.namespace, "labels": labels}
            written = cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        else:
            written = cluster.replace(found | {"data": data})
        if written is not None:
            return
    raise TargetError(f"{app}: {names.state(app)} is written by others again and again", "who is at it there?")


def _of(found: Object | None) -> State:
    data = (found or {}).get("data") or {}
    return State.model_validate({key: json.loads(value) for key, value in data.items() if key in State.model_fields})
