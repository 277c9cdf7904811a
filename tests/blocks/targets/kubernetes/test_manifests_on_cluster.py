"""An app's own manifests on a real cluster: applied, rolled back, pruned; foreign objects are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from blocks.registries.oci import Registry
from blocks.targets.kubernetes import labels as names
from blocks.targets.kubernetes.api_client import DEPLOYMENT, Cluster, Kind
from blocks.targets.kubernetes.kubeconfig import connect
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.errors import TargetError
from headway.domain.plan import Probe
from headway.domain.revision import Artifact, Health, LaunchSpec, Manifest, ProbeSettings, Revision, SecretRef
from headway.domain.traffic import Traffic
from tests.e2e.conftest import APP, GOOD
from tests.standins.clusters import Borrowed, Namespace
from tests.standins.docker_engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]
CONFIG = Kind("v1", "ConfigMap")
SHA = {"old": "1" * 40, "new": "2" * 40}


@pytest.fixture(scope="module")
def artifact(cluster: Borrowed, engine: Engine) -> Artifact:
    return cluster.image(engine, {"app.py": GOOD + APP})


@pytest.fixture
def target(namespace: Namespace) -> KubernetesTarget:
    registry = Registry(host=namespace.registry, plain_http=True)
    return KubernetesTarget(kubeconfig=namespace.admin, namespace=namespace.name, registry=registry)


@pytest.fixture
def api(namespace: Namespace) -> Cluster:
    return connect("test", namespace.name, path=namespace.admin, context=None, text=None)


def config(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str, image: str, **container: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "main", "image": image, **container}], "terminationGracePeriodSeconds": 3}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def spec_of(artifact: Artifact, *others: dict[str, Any]) -> LaunchSpec:
    """The app's Deployment, which listens where Headway would not have thought, and other objects."""
    repository = artifact.location.partition("@")[0]
    from_config = [{"configMapRef": {"name": "shop-config"}}]
    web = deployment("shop", f"{repository}:v1", ports=[{"containerPort": 3000}], envFrom=from_config)
    return LaunchSpec(
        environment="staging",
        artifact=artifact,
        env={"LOG_LEVEL": "info"},
        health=Health(startup=40, startup_probe=ProbeSettings(period=1, failures=1)),
        stop_grace=2,
        manifests=tuple(Manifest(source="k8s/a.yaml#1", content=one) for one in (web, *others)),
    )


def up(target: KubernetesTarget, spec: LaunchSpec, name: str) -> Revision:
    revision = spec.revision("shop", SHA[name])
    target.launch(revision, spec)
    until(lambda: target.ready(revision).ready >= 1)
    return revision


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def live(target: KubernetesTarget, spec: LaunchSpec, name: str) -> Revision:
    revision = up(target, spec, name)
    target.route("shop", Traffic.all_to(revision))
    return revision


def said(api: Cluster, name: str = "shop-config") -> dict[str, str] | None:
    found = api.get(CONFIG, name)
    return None if found is None else dict(found["data"])


def image_of(api: Cluster, name: str) -> str | None:
    found = api.get(DEPLOYMENT, name)
    return None if found is None else str(found["spec"]["template"]["spec"]["containers"][0]["image"])


def test_pods_run_as_the_manifests_say(target: KubernetesTarget, api: Cluster, artifact: Artifact) -> None:
    revision = live(target, spec_of(artifact, config("shop-config", greeting="hello")), "old")
    found = api.get(DEPLOYMENT, names.deployment(revision))
    assert found is not None
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"]) == ("main", artifact.location)
    assert any("listening on 3000" in line.text for line in target.logs("shop"))
    assert target.send("shop", revision.id, Probe(method="GET", path="/")) == 200
    (instance,) = target.observe("shop").instances[revision.id]
    assert instance.address.endswith(":3000")


def test_other_objects_follow_the_serving_revision_and_roll_back_with_it(
    target: KubernetesTarget, api: Cluster, artifact: Artifact
) -> None:
    """The worker is updated with the route; objects that old pods need are kept while they run."""
    repository = artifact.location.partition("@")[0]
    idle = deployment("worker", f"{repository}:v1", command=["/bin/sleep", "1000"])
    before = spec_of(artifact, config("shop-config", a="1"), config("shop-old", a="1"), idle)
    old = live(target, before, "old")
    assert image_of(api, "worker") == artifact.location
    changed = deployment("worker", f"{repository}:v1", command=["/bin/sleep", "2000"])
    after = spec_of(artifact, config("shop-config", a="2"), config("shop-new", a="2"), changed)

    new = up(target, after, "new")
    worker = api.get(DEPLOYMENT, "worker")
    assert worker is not None
    assert worker["spec"]["template"]["spec"]["containers"][0]["command"] == ["/bin/sleep", "1000"]
    assert (said(api), said(api, "shop-old"), said(api, "shop-new")) == ({"a": "2"}, {"a": "1"}, {"a": "2"})

    target.retire(new)  # it was not good
    assert (said(api), said(api, "shop-old"), said(api, "shop-new")) == ({"a": "1"}, {"a": "1"}, None)

    new = live(target, after, "new")
    worker = api.get(DEPLOYMENT, "worker")
    assert worker is not None
    assert worker["spec"]["template"]["spec"]["containers"][0]["command"] == ["/bin/sleep", "2000"]
    assert said(api, "shop-old") == {"a": "1"}
    target.retire(old)
    assert (said(api), said(api, "shop-old"), said(api, "shop-new")) == ({"a": "2"}, None, {"a": "2"})

    live(target, before, "old")
    target.retire(new)
    assert (said(api), said(api, "shop-old"), said(api, "shop-new")) == ({"a": "1"}, {"a": "1"}, None)


def test_foreign_objects_are_neither_changed_nor_removed(
    target: KubernetesTarget, api: Cluster, artifact: Artifact
) -> None:
    api.create(config("shop-config", whose="somebody's"))
    spec = spec_of(artifact, config("shop-config", a="1"), config("mine", a="1"))
    revision = spec.revision("shop", SHA["old"])
    with pytest.raises(TargetError, match=r"ConfigMap shop-config: .* not Headway's") as raised:
        target.launch(revision, spec)
    assert said(api) == {"whose": "somebody's"}
    assert said(api, "mine") is None
    label = raised.value.what.rpartition("shop-config ")[2]
    labels = dict(one.split("=") for one in label.split())
    api.patch(CONFIG, "shop-config", {"metadata": {"labels": labels}, "data": {"whose": None}})
    old = live(target, spec, "old")
    api.patch(CONFIG, "mine", {"metadata": {"labels": {names.APP: None}}})  # taken out of Headway's hands
    live(target, spec_of(artifact, config("shop-config", a="2")), "new")
    target.retire(old)
    assert (said(api), said(api, "mine")) == ({"a": "2"}, {"a": "1"})


def test_volumes_outlive_their_revision(target: KubernetesTarget, api: Cluster, artifact: Artifact) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    old = live(target, spec_of(artifact, config("shop-config"), claim), "old")
    live(target, spec_of(artifact, config("shop-config")), "new")
    target.retire(old)
    assert api.get(Kind("v1", "PersistentVolumeClaim"), "data") is not None
    target.destroy("shop")
    assert said(api) is None


def test_a_foreign_namespace_is_refused(target: KubernetesTarget, artifact: Artifact) -> None:
    other = config("a")
    other["metadata"]["namespace"] = "elsewhere"
    spec = spec_of(artifact, other)
    with pytest.raises(TargetError, match=r"k8s/a\.yaml#1: is in namespace elsewhere"):
        target.launch(spec.revision("shop", SHA["old"]), spec)


def test_invalid_objects_are_refused_before_anything_is_applied(
    target: KubernetesTarget, api: Cluster, artifact: Artifact
) -> None:
    """The schemas of this version are checked first, then the cluster's own validation."""
    worker = deployment("worker", "a", ports=[{"containerPort": 99999}])
    later = config("Not_A_Name")
    missing = {"apiVersion": "example.com/v1", "kind": "Nothing", "metadata": {"name": "a"}}
    spec = spec_of(artifact, config("shop-config"), worker, later)
    revision = spec.revision("shop", SHA["old"])
    with pytest.raises(TargetError) as raised:
        target.launch(revision, spec)
    lines = raised.value.what.splitlines()
    assert len(lines) == 2
    assert "k8s/a.yaml#1: Deployment worker: " in lines[0]
    assert "spec.template.spec.containers[0].ports[0].containerPort" in lines[0]
    assert "k8s/a.yaml#1: ConfigMap Not_A_Name: " in lines[1]
    unknown = spec_of(artifact, config("shop-config", a=1), missing)  # type: ignore[arg-type]
    with pytest.raises(TargetError) as raised:
        target.compare(revision, unknown)
    assert [line.partition("#1: ")[2] for line in raised.value.what.splitlines()] == [
        "ConfigMap shop-config: data/a: expected string",
        "Nothing a: the cluster has no such kind in example.com/v1: is its definition (CRD) installed?",
    ]
    assert (said(api), target.observe("shop").url) == (None, None)


def changed(target: KubernetesTarget, spec: LaunchSpec) -> dict[str, list[str]]:
    """The lines that begin with + or -, of each object."""
    found = target.compare(spec.revision("shop", SHA["new"]), spec)
    assert found is not None
    return {one.name: [line for line in one.unified[2:] if line[0] in "+-"] for one in found}


def test_plan_shows_changes_without_secrets(target: KubernetesTarget, api: Cluster, artifact: Artifact) -> None:
    secret = {"env": {"LOG_LEVEL": "info", "TOKEN": SecretRef(secret="shop/token")}}
    before = spec_of(artifact, config("shop-config", a="1"), config("shop-old", a="1"))
    first = changed(target, before.model_copy(update=secret))
    assert "+  TOKEN: '********'" in first[f"Secret {names.deployment(target_revision(before, secret))}"]
    resolved = before.model_copy(update={"env": {"LOG_LEVEL": "info", "TOKEN": "hunter2"}, "secrets": ("TOKEN",)})
    live(target, resolved, "old")
    said_before = api.get(CONFIG, "shop-config")
    after = spec_of(artifact, config("shop-config", a="2")).model_copy(update=secret)
    found = changed(target, after.model_copy(update={"env": {**secret["env"], "LOG_LEVEL": "debug"}}))
    assert found.pop("ConfigMap shop-config") == ["-  a: '1'", "+  a: '2'"]
    assert "-  a: '1'" in found.pop("ConfigMap shop-old")
    (told,) = (lines for name, lines in found.items() if name.startswith("ConfigMap"))
    assert [line for line in told if "LOG_LEVEL" in line] == ["-  LOG_LEVEL: info", "+  LOG_LEVEL: debug"]
    assert not any(name.startswith(("Deployment", "Secret")) for name in found)  # as they are
    assert "hunter2" not in str(found)
    assert api.get(CONFIG, "shop-config") == said_before


def target_revision(spec: LaunchSpec, changes: dict[str, Any]) -> Revision:
    return spec.model_copy(update=changes).revision("shop", SHA["new"])
