"""What a launch would send to the cluster, tried in a dry run before anything is sent."""

from __future__ import annotations

import json

from blocks.targets.kubernetes import (
    dry_run,
    manifest_validation,
    manifests,
    own_manifests,
    owned_objects,
    render,
    scaling,
)
from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.api_client import Cluster, Object, kind_of
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import ObjectDiff

__all__ = ["differences", "objects"]


def objects(
    cluster: Cluster, revision: Revision, spec: LaunchSpec, rules: render.Rules, *, conflicts: bool = True
) -> list[Object]:
    """The objects of a launch as the cluster would store them. Raises TargetError with all refusals.

    Fields of other managers in objects that are shared with them are refusals too, unless `conflicts` is false: a
    launch leaves those fields as they are.
    """
    app = revision.app
    if lost := manifest_validation.outside_namespace(cluster.namespace, spec.manifests):
        raise TargetError("\n".join(lost), "leave the namespace out, or give the target that one")
    shared = [
        render.service_frame(app, app, spec.environment, rules),
        *manifests.own_objects(app, spec, cluster.namespace),
        *render.app_objects(app, spec, rules),
    ]
    own = render.revision_objects(revision, spec, rules)
    if spec.autoscale:
        own.append(scaling.autoscaler(own[-1], spec, rules))
    return dry_run.rehearsed(cluster, shared, own, manifests.sources(revision, spec), conflicts=conflicts)


def differences(
    cluster: Cluster, revision: Revision, spec: LaunchSpec, rules: render.Rules, *, serving: str | None
) -> tuple[ObjectDiff, ...]:
    """Compare a revision's objects with those of the revision that serves."""
    app, made = revision.app, objects(cluster, revision, render.redacted(spec), rules)
    keys = {owned_objects.key(one) for one in made}
    left = [one for one in own_manifests.known(cluster, app) if one not in keys and one[1] != owned_objects.DATA]
    found = [
        *(_difference(_current(cluster, revision, one, serving), one) for one in made),
        *(_difference(gone, None) for one in left if (gone := owned_objects.ours(cluster, one, app))),
    ]
    return tuple(one for one in found if one.now != one.then)


def _current(cluster: Cluster, revision: Revision, thing: Object, serving: str | None) -> Object | None:
    """The existing counterpart of this object, with the name and labels of the new revision."""
    kind, name = kind_of(thing), thing["metadata"]["name"]
    found = cluster.get(kind, name)
    if found is None and serving and name == names.deployment(revision):
        found = cluster.get(kind, names.of_revision(revision.app, serving))
        found = found and json.loads(json.dumps(found).replace(serving, revision.id))
    return found


def _difference(now: Object | None, then: Object | None) -> ObjectDiff:
    one = then or now
    assert one is not None
    name = f"{one['kind']} {one['metadata']['name']}"
    return ObjectDiff(name=name, now=dry_run.in_words(now), then=dry_run.in_words(then))
