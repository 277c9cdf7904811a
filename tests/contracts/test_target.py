"""The Target contract, for every platform. Add a class for a new one; it must pass without other changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from blocks import loading
from blocks.targets._envoy_fronted import BehindEnvoy
from blocks.targets.kubernetes import replica_weights
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec
from headway.domain.traffic import Traffic
from headway.system.ports_in_use import is_free
from headway.testing import FakeTarget
from headway.testing.contracts import TargetContract, start
from tests.contracts import targets
from tests.standins.clusters import Borrowed
from tests.standins.docker_engine import Engine

pytestmark = pytest.mark.slow

with_images = pytest.mark.xdist_group("docker")


class TestFake(TargetContract):
    serves_requests = False

    @pytest.fixture
    def target(self) -> FakeTarget:
        return FakeTarget()

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path)

    def unavailable(self, target: Target, spec: LaunchSpec) -> LaunchSpec:
        gone = super().unavailable(target, spec)
        assert isinstance(target, FakeTarget)
        target.lost = {gone.artifact.digest}
        return gone


class FreesItsPort:
    """For targets whose public ports are on this machine."""

    def test_forgotten_app_releases_its_port(self, target: BehindEnvoy, spec: LaunchSpec) -> None:
        revision = start(target, spec)
        port = httpx.URL(target.observe("shop").url or "").port
        assert port
        assert not is_free("127.0.0.1", port)
        target.retire(revision)
        target.forget("shop")
        assert is_free("127.0.0.1", port)


class TestProcess(FreesItsPort, TargetContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Target]:
        with targets.process(tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path)


@with_images
class TestDocker(FreesItsPort, TargetContract):
    keeps_artifacts = False  # no registry has the image

    @pytest.fixture
    def target(self, engine: Engine, tmp_path: Path) -> Iterator[Target]:
        with targets.docker(engine, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, engine: Engine) -> LaunchSpec:
        return targets.image_spec(engine)


@with_images
class TestKubernetesGateway(TargetContract):
    @pytest.fixture
    def target(self, cluster: Borrowed, tmp_path: Path) -> Iterator[Target]:
        with targets.kubernetes_gateway(cluster, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, cluster: Borrowed, engine: Engine) -> LaunchSpec:
        return targets.cluster_spec(cluster, engine)


class ByReplicas(TargetContract):
    """For targets that split traffic by the number of pods."""

    def routed(self, target: Target, wanted: Traffic, instances: dict[str, int]) -> dict[str, int]:
        if len(wanted.weights) < 2:
            return wanted.weights
        return replica_weights.weights(replica_weights.nearest(wanted.weights, instances))


@with_images
class TestKubernetes(ByReplicas):
    @pytest.fixture
    def target(self, cluster: Borrowed, tmp_path: Path) -> Iterator[Target]:
        with targets.kubernetes(cluster, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, cluster: Borrowed, engine: Engine) -> LaunchSpec:
        return targets.cluster_spec(cluster, engine)


class TestKubernetesApi(ByReplicas):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Target]:
        with targets.kubernetes_api_only(tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, target: KubernetesTarget) -> LaunchSpec:
        assert target.registry
        return targets.pushed_spec(target.registry.host)


class TestVercel(TargetContract):
    single_app = True

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
        with targets.vercel(request, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path, instances=1)


class TestRailway(TargetContract):
    single_app = True

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
        with targets.railway(request, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path, instances=1)

    def unavailable(self, target: Target, spec: LaunchSpec) -> LaunchSpec:
        # Railway builds commits from the repository, and only that knows whether one still exists.
        gone = super().unavailable(target, spec)
        return gone.model_copy(update={"artifact": gone.artifact.model_copy(update={"kind": "image"})})


def test_every_platform_passes_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    tested = {TestDocker, TestKubernetes, TestProcess, TestRailway, TestVercel}
    assert set(loading.targets()) == {one.__name__.removeprefix("Test").lower() for one in tested}
