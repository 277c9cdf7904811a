"""Targets of every platform, for the contract tests and the platforms' own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from blocks.registries.oci import Registry
from blocks.targets.docker.target import DockerTarget
from blocks.targets.kubernetes.target import KubernetesTarget
from blocks.targets.process.target import ProcessTarget
from blocks.targets.railway.target import RailwayTarget
from blocks.targets.vercel.target import VercelTarget
from headway.domain.revision import Artifact, LaunchSpec
from headway.system import sealed_tree
from headway.testing.contracts import SAMPLE_APP, SHA, launch_spec, sample_bundle
from tests.e2e.conftest import Repo
from tests.standins import gateway_controller as gateways
from tests.standins import kubernetes_api, registries
from tests.standins import railway as railways
from tests.standins import vercel as vercels
from tests.standins.clusters import Borrowed
from tests.standins.docker_engine import Engine

__all__ = [
    "bundle_spec",
    "cluster_spec",
    "docker",
    "image_spec",
    "kubernetes",
    "kubernetes_api_only",
    "kubernetes_gateway",
    "process",
    "processes_of",
    "pushed_spec",
    "railway",
    "vercel",
    "with_files",
]


@contextmanager
def process(directory: Path) -> Iterator[ProcessTarget]:
    target = ProcessTarget(directory=directory)
    yield target
    target.destroy()
    assert processes_of(directory) == []


@contextmanager
def docker(engine: Engine, directory: Path) -> Iterator[DockerTarget]:
    namespace = f"headway-test-{secrets.token_hex(3)}"
    target = DockerTarget(directory=directory, url=engine.url, namespace=namespace)
    yield target
    target.destroy()
    assert processes_of(directory) == []
    assert engine.client.containers.list(all=True) == []


@contextmanager
def vercel(request: pytest.FixtureRequest, directory: Path) -> Iterator[VercelTarget]:
    with vercels.vercel(directory / "vercel", request.getfixturevalue("trust")) as server:
        server.stages = [{"targetPercentage": weight, "requireApproval": True} for weight in (5, 50, 100)]
        server.protected = True
        yield VercelTarget(
            directory=directory,
            url=server.url,
            token=vercels.TOKEN,
            team=vercels.TEAM,
            project="shop",
            domain=server.production,
            bypass=vercels.BYPASS,
            poll=0.05,
        )


@contextmanager
def railway(request: pytest.FixtureRequest, directory: Path) -> Iterator[RailwayTarget]:
    with railways.railway(directory / "railway", request.getfixturevalue("trust")) as server:
        directory.mkdir(exist_ok=True)
        repo = Repo(directory / "repo", "shop")
        server.repository = repo.path
        server.commits = {SHA[name]: repo.behave(f"    return 200, {{'name': '{name}'}}") for name in ("old", "new")}
        token = railways.TOKENS[railways.PRODUCTION]
        yield RailwayTarget(directory=directory, url=server.url, token=token, service="shop", poll=0.05, timeout=60)


@contextmanager
def kubernetes(cluster: Borrowed, directory: Path) -> Iterator[KubernetesTarget]:
    directory.mkdir()
    with cluster.namespace(directory) as namespace:
        yield KubernetesTarget(
            kubeconfig=namespace.kubeconfig,
            namespace=namespace.name,
            registry=Registry(host=namespace.registry, plain_http=True),
        )


@contextmanager
def kubernetes_gateway(cluster: Borrowed, directory: Path) -> Iterator[KubernetesTarget]:
    directory.mkdir()
    with cluster.namespace(directory) as namespace, gateways.gateway(namespace, directory / "gateway") as gateway:
        yield KubernetesTarget(
            kubeconfig=namespace.kubeconfig,
            namespace=namespace.name,
            registry=Registry(host=namespace.registry, plain_http=True),
            gateway=gateway.name,
            url=gateway.url,
        )


@contextmanager
def kubernetes_api_only(directory: Path) -> Iterator[KubernetesTarget]:
    """The kubernetes target on a stand-in of the API, for machines without a cluster."""
    directory.mkdir()
    with kubernetes_api.serving(directory) as (_, kubeconfig), registries.serving(directory / "registry") as host:
        yield KubernetesTarget(
            kubeconfig=kubeconfig, namespace="shops", registry=Registry(host=host, plain_http=True), settle=0
        )


def bundle_spec(directory: Path, instances: int = 2) -> LaunchSpec:
    return launch_spec(sample_bundle(directory / "bundle"), instances=instances)


def with_files(spec: LaunchSpec, **sources: str) -> LaunchSpec:
    """The spec with a bundle that has these files, NAME.py each, besides or instead of its own."""
    place = Path(spec.artifact.location)
    place.chmod(0o755)
    for name, source in sources.items():
        (place / f"{name}.py").unlink(missing_ok=True)
        (place / f"{name}.py").write_text(source)
    sealed_tree.seal(place)
    artifact = spec.artifact.model_copy(update={"digest": f"sha256:{sealed_tree.digest_of(place)}"})
    return spec.model_copy(update={"artifact": artifact})


def image_spec(engine: Engine) -> LaunchSpec:
    return launch_spec(engine.image({"app.py": SAMPLE_APP}), run="", instances=2)


def cluster_spec(cluster: Borrowed, engine: Engine) -> LaunchSpec:
    return launch_spec(cluster.image(engine, {"app.py": SAMPLE_APP}), run="", instances=2)


def pushed_spec(registry: str) -> LaunchSpec:
    """An image that a registry has, which nothing runs."""
    digest, _ = registries.image(registry, "shop", b"its only layer")
    artifact = Artifact(kind="image", digest=digest, location=f"{registry}/shop@{digest}", size=1)
    return launch_spec(artifact, run="", instances=2)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Processes that a target with this directory started, and that still run."""
    return [one for one in psutil.process_iter() if _supervised_by(one) == str(directory)]


def _supervised_by(one: psutil.Process) -> str | None:
    try:
        return one.environ().get("HEADWAY_SUPERVISED_BY")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
