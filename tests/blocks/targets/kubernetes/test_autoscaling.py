"""An autoscaler on a real cluster scales the serving revision, without conflicts with Headway."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from blocks.registries.oci import Registry
from blocks.targets.kubernetes import labels
from blocks.targets.kubernetes.api_client import AUTOSCALER, Cluster
from blocks.targets.kubernetes.kubeconfig import connect
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.revision import Artifact, Autoscale, Health, LaunchSpec, ProbeSettings, Revision
from headway.domain.traffic import Traffic
from tests.e2e.conftest import APP, GOOD
from tests.standins.clusters import Borrowed, Namespace
from tests.standins.docker_engine import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]
SHA = {"old": "1" * 40, "new": "2" * 40}


@pytest.fixture
def target(namespace: Namespace) -> KubernetesTarget:
    registry = Registry(host=namespace.registry, plain_http=True)
    return KubernetesTarget(kubeconfig=namespace.kubeconfig, namespace=namespace.name, registry=registry)


@pytest.fixture
def api(namespace: Namespace) -> Cluster:
    return connect("test", namespace.name, path=namespace.kubeconfig, context=None, text=None)


@pytest.fixture
def spec(cluster: Borrowed, engine: Engine) -> LaunchSpec:
    artifact: Artifact = cluster.image(engine, {"app.py": GOOD + APP})
    return LaunchSpec(
        environment="staging",
        artifact=artifact,
        health=Health(startup=40, startup_probe=ProbeSettings(period=1, failures=1)),
        stop_grace=2,
        autoscale=Autoscale(min=2, max=4, cpu=70),
    )


def up(target: KubernetesTarget, spec: LaunchSpec, name: str, instances: int = 1) -> Revision:
    revision = spec.revision("shop", SHA[name])
    target.launch(revision, spec.model_copy(update={"instances": instances}))
    until(lambda: target.ready(revision).ready >= instances)
    return revision


def until(done: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def autoscaled(api: Cluster) -> set[str]:
    return {one["spec"]["scaleTargetRef"]["name"] for one in api.find(AUTOSCALER)}


def test_autoscaler_follows_the_serving_revision(target: KubernetesTarget, api: Cluster, spec: LaunchSpec) -> None:
    old = up(target, spec, "old")
    assert autoscaled(api) == set()
    target.route("shop", Traffic.all_to(old))
    assert autoscaled(api) == {labels.deployment(old)}
    until(lambda: target.ready(old).ready == 2)  # its fewest: the autoscaler has seen to it

    target.launch(old, spec)  # again, with fewer: what it has made of it stays
    assert target.ready(old).wanted == 2

    new = up(target, spec, "new", 2)
    target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
    assert autoscaled(api) == {labels.deployment(old)}
    target.route("shop", Traffic.all_to(new))
    assert autoscaled(api) == {labels.deployment(new)}
    assert target.ready(old).wanted == 2  # warm, as many as served

    target.route("shop", Traffic.all_to(old))
    assert autoscaled(api) == {labels.deployment(old)}
    target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
    target.retire(old, keep=1)  # its autoscaler goes first: it would have them back
    assert autoscaled(api) == set()
    assert target.ready(old).wanted == 1
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert autoscaled(api) == {labels.deployment(new)}
    target.destroy("shop")
    assert autoscaled(api) == set()
