"""Objects of an app's own manifests in a rollout: applied before its pods, removed when no revision needs them."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes import manifests, owned_objects, state_config_map, workloads
from blocks.targets.kubernetes.api_client import Cluster
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec

__all__ = ["bring", "known", "settle"]


def bring(cluster: Cluster, app: str, spec: LaunchSpec) -> None:
    """Apply the objects of the app's manifests besides the Deployment, before its pods need them.

    Objects with their own pods follow when the revision has all the traffic, see `settle`.
    """
    things = manifests.own_objects(app, spec, cluster.namespace)
    if not things:
        return
    for thing in things:
        if refusal := owned_objects.conflict(cluster, thing):
            raise TargetError(f"{cluster.who}: {thing['kind']} {thing['metadata']['name']} {refusal}")
    _keep_known(cluster, app, dict.fromkeys([*known(cluster, app), *map(owned_objects.key, things)]))
    for thing in things:
        if not manifests.runs_pods(thing):
            cluster.offer(thing)


def settle(cluster: Cluster, app: str, live: str | None) -> None:
    """Apply the objects of the revision with all the traffic. Remove those that no running revision wants."""
    before = known(cluster, app)
    if not before:
        return
    specs = {
        one["metadata"]["labels"][names.REVISION]: workloads.spec_of(one)
        for one in workloads.deployments(cluster, app)
        if one["spec"].get("replicas", 1)
    }
    things = {revision: manifests.own_objects(app, spec, cluster.namespace) for revision, spec in specs.items()}
    for thing in things.get(live or "", []):
        cluster.offer(thing)
    wanted = {owned_objects.key(thing) for ours in things.values() for thing in ours}
    _keep_known(cluster, app, owned_objects.prune(cluster, before, wanted, app))


def known(cluster: Cluster, app: str) -> list[owned_objects.Key]:
    """Keys of the objects that were ever applied and not removed."""
    return list(state_config_map.read(cluster, app).belongings)


def _keep_known(cluster: Cluster, app: str, keys: Iterable[owned_objects.Key]) -> None:
    listed = tuple(keys)
    state_config_map.change(cluster, app, lambda kept: kept.model_copy(update={"belongings": listed}))
