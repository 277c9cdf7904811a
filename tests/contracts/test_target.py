"""The Target contract, for every platform. Add a class for a new one; it must pass without other changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from blocks import loading
from blocks.targets._envoy_fronted import BehindEnvoy
from blocks.targets.kubernetes import replica_weights
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.config import Environment
from headway.domain.plan import AwaitReady, Drain, Launch, Plan, Promote, Retire, Route
from headway.domain.ports import Target
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Capability, Traffic
from headway.rollout import strategies
from headway.rollout.planning import plan_for
from headway.system.ports_in_use import is_free
from headway.testing import FakeTarget
from headway.testing.contracts import SHA, TargetContract, start, until, versions
from tests.contracts import targets
from tests.standins.clusters import Borrowed
from tests.standins.docker_engine import Engine

pytestmark = pytest.mark.slow

with_images = pytest.mark.xdist_group("docker")


class Contract(TargetContract):
    """The contract, and what the strategies need besides."""

    def test_releasing_what_is_live_replaces_nothing_with_any_strategy(self, target: Target, spec: LaunchSpec) -> None:
        old, new = start(target, spec), start(target, spec, "new", 1)
        target.route("shop", Traffic.all_to(old))
        if Capability.WEIGHTED_ROUTING in target.capabilities:  # as an interrupted rollout leaves it
            target.route("shop", Traffic(weights={old.id: 95, new.id: 5}))
        known = {revision.id: revision for revision in (old, new)}
        for strategy in strategies.possible(target.capabilities):
            before = target.observe("shop").instances[old.id]
            environment = Environment.model_validate({"target": "fake/one", "strategy": strategy})
            wanted = spec.model_copy(update={"instances": 2 if Capability.INSTANCES in target.capabilities else 1})
            planned = plan_for(target, environment, old, wanted, stable=old.id)
            assert f"{old} is live already: none of its instances is replaced" in planned.remarks
            walk(target, planned.plan, known, wanted)
            seen = target.observe("shop")
            assert {one.name: one.run for one in seen.instances[old.id]} == {one.name: one.run for one in before}
            assert set(seen.instances) == {old.id}
            assert seen.traffic == Traffic.all_to(old)
            if seen.url and self.serves_requests:
                assert versions(target, seen.url, 5) == {SHA["old"]}

    def test_releasing_what_is_live_with_another_number_of_instances_scales_it(
        self, target: Target, spec: LaunchSpec
    ) -> None:
        revision = start(target, spec)
        target.route("shop", Traffic.all_to(revision))
        if Capability.INSTANCES not in target.capabilities:
            return
        environment = Environment.model_validate({"target": "fake/one"})
        for count in (3, 1):
            wanted = spec.model_copy(update={"instances": count})
            planned = plan_for(target, environment, revision, wanted, stable=revision.id)
            walk(target, planned.plan, {revision.id: revision}, wanted)
            assert target.observe("shop").ready(revision) == count
            assert len(target.observe("shop").instances[revision.id]) == count


def walk(target: Target, plan: Plan, revisions: Mapping[str, Revision], spec: LaunchSpec) -> None:
    """Take the steps of a plan that waits for nobody and measures nothing."""
    for step in plan.steps:
        match step:
            case Launch():
                target.launch(revisions[step.revision], spec.model_copy(update={"instances": step.instances}))
            case AwaitReady():
                until(lambda step=step: target.ready(revisions[step.revision]).ready >= step.instances)  # type: ignore[misc]
            case Route():
                target.route("shop", step.traffic)
            case Drain():
                assert target.drain(revisions[step.revision], step.deadline)
            case Retire():
                target.retire(revisions[step.revision], step.keep)
            case Promote():
                pass
            case _:
                pytest.fail(f"no step of such a plan: {step}")


class TestFake(Contract):
    serves_requests = False
    launches_bundles = False

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


class TestProcess(FreesItsPort, Contract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Target]:
        with targets.process(tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path)


@with_images
class TestDocker(FreesItsPort, Contract):
    keeps_artifacts = False  # no registry has the image

    @pytest.fixture
    def target(self, engine: Engine, tmp_path: Path) -> Iterator[Target]:
        with targets.docker(engine, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, engine: Engine) -> LaunchSpec:
        return targets.image_spec(engine)


@with_images
class TestKubernetesGateway(Contract):
    @pytest.fixture
    def target(self, cluster: Borrowed, tmp_path: Path) -> Iterator[Target]:
        with targets.kubernetes_gateway(cluster, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, cluster: Borrowed, engine: Engine) -> LaunchSpec:
        return targets.cluster_spec(cluster, engine)


class ByReplicas(Contract):
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


class TestVercel(Contract):
    single_app = True

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
        with targets.vercel(request, tmp_path / "target") as made:
            yield made

    @pytest.fixture
    def spec(self, tmp_path: Path) -> LaunchSpec:
        return targets.bundle_spec(tmp_path, instances=1)


class TestRailway(Contract):
    single_app = True
    launches_bundles = False  # it builds the commit

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
