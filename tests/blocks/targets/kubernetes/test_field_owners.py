"""Fields that others set: what moves traffic is set again, the rest is reported before the first step and left."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.targets.kubernetes import field_owners, labels
from blocks.targets.kubernetes.kubeconfig import connect
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.errors import TargetError
from headway.domain.plan import Plan
from headway.domain.revision import Revision
from headway.domain.traffic import Traffic
from tests.blocks.targets.kubernetes.test_target import SPEC, launched, until, with_manifests
from tests.standins.field_managers import leaves, managed_fields
from tests.standins.kubernetes_api import ApiServer, Object, serving

pytestmark = pytest.mark.slow

NOTHING = Plan(strategy="rolling", new="", old=None, steps=())
EDITS: list[Object] = [
    {"spec": {"type": "LoadBalancer"}},
    {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9000, "protocol": "TCP"}]}},
    {"metadata": {"labels": {"app.kubernetes.io/name": "the-shop"}}},
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ApiServer, Path]]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def api(served: tuple[ApiServer, Path]) -> ApiServer:
    return served[0]


@pytest.fixture
def target(served: tuple[ApiServer, Path]) -> KubernetesTarget:
    return KubernetesTarget(kubeconfig=served[1], namespace="shops", settle=0)


@pytest.fixture
def live(target: KubernetesTarget) -> Revision:
    revision = launched(target, 1)
    target.route("shop", Traffic.all_to(revision))
    return revision


def scale(api: ApiServer, revision: Revision, number: int, by: str = "kubectl") -> None:
    """`kubectl scale`, or what an autoscaler does."""
    api.change("deployments", labels.deployment(revision), {"spec": {"replicas": number}}, by, "scale")


def pods(target: KubernetesTarget, revision: Revision) -> int:
    return len(target.observe("shop").instances.get(revision.id, ()))


def run(api: ApiServer, command: str) -> None:
    """A `kubectl patch` from an error message."""
    words = shlex.split(command)
    assert words[:6] == ["kubectl", "-n", "shops", "patch", "service", "shop"]
    api.change("services", words[5], json.loads(words[-1]), "kubectl-patch")


def test_a_scaled_revision_is_replaced_and_restored(
    api: ApiServer, target: KubernetesTarget, live: Revision, caplog: pytest.LogCaptureFixture
) -> None:
    scale(api, live, 5)
    (remark,) = target.remarks("shop", NOTHING)
    assert remark.startswith(f"Deployment {labels.deployment(live)}: 5 pods were set by kubectl: Headway sets")
    new = launched(target, 2)
    target.route("shop", Traffic(weights={live.id: 50, new.id: 50}))
    with caplog.at_level(logging.WARNING, "headway.targets"):
        target.retire(live, keep=1)
    assert caplog.messages == [
        f"Deployment {labels.deployment(live)}: .spec.replicas was set by kubectl: Headway sets it again"
    ]
    assert pods(target, live) == 1
    scale(api, live, 3)
    target.route("shop", Traffic.all_to(new))
    target.retire(live)
    assert pods(target, live) == 0
    scale(api, new, 4)
    target.launch(live, SPEC)
    until(lambda: target.ready(live).ready == SPEC.instances)
    target.route("shop", Traffic.all_to(live))
    target.retire(new)
    assert target.observe("shop").live == live.id
    assert pods(target, new) == 0


def test_a_scaled_revision_that_is_launched_again_keeps_its_pods(
    api: ApiServer, target: KubernetesTarget, live: Revision
) -> None:
    scale(api, live, 5)
    target.launch(live, SPEC)
    assert pods(target, live) == 5


def test_a_foreign_autoscaler_is_reported_and_stops_nothing(
    api: ApiServer, target: KubernetesTarget, live: Revision
) -> None:
    name = labels.deployment(live)
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    api.write("horizontalpodautoscalers", {"metadata": {"name": "theirs"}, "spec": {"scaleTargetRef": scaled}})
    scale(api, live, 4, "kube-controller-manager")
    *_, remark = target.remarks("shop", NOTHING)
    assert remark.startswith(f"HorizontalPodAutoscaler theirs scales {name} and is not Headway's")
    assert remark.endswith("kubectl -n shops delete hpa theirs")
    new = launched(target, 2)
    target.route("shop", Traffic(weights={live.id: 50, new.id: 50}))
    target.retire(live, keep=1)
    scale(api, live, 4, "kube-controller-manager")
    target.route("shop", Traffic.all_to(new))
    target.retire(live)
    assert pods(target, live) == 0


def test_the_selector_of_the_service_is_set_again(
    api: ApiServer, target: KubernetesTarget, live: Revision, caplog: pytest.LogCaptureFixture
) -> None:
    api.change("services", "shop", {"spec": {"selector": {labels.REVISION: "debug"}}}, "kubectl-edit")
    assert target.remarks("shop", NOTHING) == (
        "Service shop: its selector was set by kubectl-edit: Headway sets it again",
    )
    new = launched(target, 2)
    with caplog.at_level(logging.WARNING, "headway.targets"):
        target.route("shop", Traffic.all_to(new))
    assert target.observe("shop").live == new.id
    assert ".spec.selector was set by kubectl-edit: Headway sets it again" in caplog.text


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_service_stops_no_rollout_and_stays(
    api: ApiServer, target: KubernetesTarget, live: Revision, edit: Object
) -> None:
    new = launched(target, 2)
    target.route("shop", Traffic(weights={live.id: 50, new.id: 50}))
    api.change("services", "shop", edit, "kubectl-edit")
    target.route("shop", Traffic.all_to(new))
    target.retire(live)
    target.launch(live, SPEC)
    target.route("shop", Traffic.all_to(live))
    assert target.observe("shop").live == live.id
    found = leaves(api.things["services", "shop"])
    assert {path: found[path] for path in leaves(edit)} == leaves(edit)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_service_is_reported_before_the_first_step_with_the_command_that_resolves_it(
    api: ApiServer, target: KubernetesTarget, live: Revision, edit: Object
) -> None:
    api.change("services", "shop", edit, "kubectl-edit")
    before, new = dict(api.things), SPEC.revision("shop", "2" * 40)
    with pytest.raises(TargetError, match=r"Service shop: \S+ was set by kubectl-edit") as caught:
        target.compare(new, SPEC)
    assert api.things == before
    run(api, caught.value.what.partition("For Headway's value: ")[2])
    assert all("Service" not in one.name for one in target.compare(new, SPEC))
    assert target.observe("shop").live == live.id


def test_rollback_keeps_app_objects_with_foreign_changes(
    api: ApiServer, target: KubernetesTarget, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = launched(target, 1, with_manifests(both="1")), launched(target, 2, with_manifests(both="2"))
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    api.change("poddisruptionbudgets", "shop", {"spec": {"maxUnavailable": 2}}, "kubectl-edit")
    api.change("configmaps", "both", {"data": {"a": "3"}}, "kubectl-edit")
    third = with_manifests(both="4")
    with pytest.raises(TargetError, match=r"(?s)ConfigMap both: .data.a was set by.*PodDisruptionBudget shop: .spec"):
        target.compare(third.revision("shop", "3" * 40), third)
    with caplog.at_level(logging.WARNING, "headway.targets"):
        launched(target, 1, with_manifests(both="1"))
        target.route("shop", Traffic.all_to(old))
        target.retire(new)
    assert target.observe("shop").live == old.id
    assert api.things["poddisruptionbudgets", "shop"]["spec"]["maxUnavailable"] == 2
    left = "PodDisruptionBudget shop: .spec.maxUnavailable was set by kubectl-edit: it stays like that"
    assert left in caplog.messages


def test_a_revision_is_launched_again_as_it_was_recorded(
    api: ApiServer, target: KubernetesTarget, live: Revision
) -> None:
    name = labels.deployment(live)
    api.change("configmaps", name, {"data": {"HEADWAY_VERSION": "patched"}}, "kubectl-edit")
    template = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 999}}}}
    api.change("deployments", name, template, "kubectl-edit")
    target.launch(live, SPEC)
    assert api.things["configmaps", name]["data"]["HEADWAY_VERSION"] == live.sha
    assert api.things["deployments", name]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] < 999


def test_the_service_of_an_earlier_version_keeps_its_selector_at_every_moment(
    api: ApiServer, target: KubernetesTarget, live: Revision
) -> None:
    """It was applied as one object by one field manager."""
    key = "services", "shop"
    owners = api.owners[key]
    api.owners[key] = {path: {one._replace(name=labels.MANAGER) for one in each} for path, each in owners.items()}
    api.things[key]["metadata"]["managedFields"] = managed_fields(api.owners[key])
    since = api.version
    new = launched(target, 2)
    target.route("shop", Traffic.all_to(new))
    seen = [thing["spec"].get("selector", {}) for at, _, kind, thing in api.log if kind == "services" and at > since]
    assert {one.get(labels.REVISION) for one in seen} == {live.id, new.id}
    assert field_owners.of(api.things[key], "spec", "selector") == {labels.ROUTER}


def test_the_command_that_resolves_a_conflict_has_the_fields_and_no_others(served: tuple[ApiServer, Path]) -> None:
    cluster = connect("test", "shops", path=served[1], context=None, text=None)
    thing = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "labels": {"app.kubernetes.io/name": "it's"}},
        "spec": {"a": {"b": 1, "c": 2}, "list": [{"name": "x", "y": 1}]},
    }
    fields = [("k", ".spec.a.b"), ("k", '.spec.list[name="x"].y'), ("k", ".metadata.labels.app.kubernetes.io/name")]
    words = shlex.split(field_owners.settled_by(cluster, thing, fields))
    assert words[:-1] == ["kubectl", "-n", "shops", "patch", "widget", "w", "--type=merge", "-p"]
    assert json.loads(words[-1]) == {
        "spec": {"a": {"b": 1}, "list": [{"name": "x", "y": 1}]},
        "metadata": {"labels": {"app.kubernetes.io/name": "it's"}},
    }
