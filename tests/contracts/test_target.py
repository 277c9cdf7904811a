"""What every target promises. A new platform's implementation is added to TARGETS and has to pass as it is.

What a target does not declare it has to refuse, and say so: that is tried instead, nothing is skipped.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from blocks import loading
from blocks.registries.oci import Registry
from blocks.targets._envoy_fronted import BehindEnvoy
from blocks.targets._hosted import Hosted
from blocks.targets.docker.target import DockerTarget
from blocks.targets.kubernetes import replica_weights
from blocks.targets.kubernetes.target import KubernetesTarget
from blocks.targets.process.target import ProcessTarget
from blocks.targets.railway.target import RailwayTarget
from blocks.targets.vercel.target import VercelTarget
from headway.domain.errors import LockLost, TargetError
from headway.domain.ports import Target
from headway.domain.revision import Artifact, Health, LaunchSpec, ProbeSettings, Revision, SecretRef
from headway.domain.traffic import Capability, HeaderRule, Traffic
from headway.system import tls
from headway.system.ports_in_use import is_free
from headway.testing import FakeTarget
from tests.e2e.conftest import APP, GOOD, Repo
from tests.standins import gateway_controller as gateways
from tests.standins import kubernetes_api, registries
from tests.standins import railway as railways
from tests.standins import vercel as vercels
from tests.standins.docker_engine import Engine

SHA = {"old": "1" * 40, "new": "2" * 40, "bad": "3" * 40}


@contextmanager
def fake(_request: pytest.FixtureRequest, _directory: Path) -> Iterator[Target]:
    yield FakeTarget()


@contextmanager
def process(_request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    target = ProcessTarget(directory=directory)
    yield target
    target.destroy()
    assert left_by(directory) == []


@contextmanager
def docker(request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    engine: Engine = request.getfixturevalue("engine")
    namespace = f"headway-test-{secrets.token_hex(3)}"
    target = DockerTarget(directory=directory, url=engine.url, namespace=namespace)
    yield target
    target.destroy()
    assert left_by(directory) == []
    assert engine.client.containers.list(all=True) == []


@contextmanager
def vercel(request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
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
def kubernetes(request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    directory.mkdir()
    with request.getfixturevalue("cluster").namespace(directory) as namespace:
        yield KubernetesTarget(
            kubeconfig=namespace.kubeconfig,
            namespace=namespace.name,
            registry=Registry(host=namespace.registry, plain_http=True),
        )


@contextmanager
def by_gateway(request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    directory.mkdir()
    cluster = request.getfixturevalue("cluster")
    with cluster.namespace(directory) as namespace, gateways.gateway(namespace, directory / "gateway") as gateway:
        yield KubernetesTarget(
            kubeconfig=namespace.kubeconfig,
            namespace=namespace.name,
            registry=Registry(host=namespace.registry, plain_http=True),
            gateway=gateway.name,
            url=gateway.url,
        )


@contextmanager
def stand_in(_request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    """Kubernetes, as far as its API goes, wherever there is no cluster."""
    directory.mkdir()
    with kubernetes_api.serving(directory) as (_, kubeconfig), registries.serving(directory / "registry") as host:
        yield KubernetesTarget(
            kubeconfig=kubeconfig, namespace="shops", registry=Registry(host=host, plain_http=True), settle=0
        )


@contextmanager
def railway(request: pytest.FixtureRequest, directory: Path) -> Iterator[Target]:
    with railways.railway(directory / "railway", request.getfixturevalue("trust")) as server:
        directory.mkdir(exist_ok=True)
        repo = Repo(directory / "repo", "shop")
        server.repository = repo.path
        server.commits = {SHA[name]: repo.behave(f"    return 200, {{'name': '{name}'}}") for name in ("old", "new")}
        token = railways.TOKENS[railways.PRODUCTION]
        yield RailwayTarget(directory=directory, url=server.url, token=token, service="shop", poll=0.05, timeout=60)


def left_by(directory: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter() if _mark(one) == str(directory)]


TARGETS = {
    "fake": fake,
    "process": process,
    "docker": docker,
    "kubernetes": kubernetes,
    "vercel": vercel,
    "railway": railway,
}
VARIANTS = {"kubernetes-gateway": by_gateway, "kubernetes-api": stand_in}
WITH_IMAGES = ("docker", "kubernetes", "kubernetes-gateway")
PARAMS = [
    pytest.param(name, marks=pytest.mark.xdist_group("docker")) if name in WITH_IMAGES else name
    for name in (*TARGETS, *VARIANTS)
]


@pytest.fixture(params=PARAMS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with (TARGETS | VARIANTS)[request.param](request, tmp_path / "target") as made:
        yield made


@pytest.fixture
def spec(target: Target, tmp_path: Path, request: pytest.FixtureRequest) -> LaunchSpec:
    """An app that answers, as the target wants it."""
    files = {"app.py": GOOD + APP}
    if isinstance(target, DockerTarget):
        engine: Engine = request.getfixturevalue("engine")
        artifact, run = engine.image(files), ""
    elif isinstance(target, KubernetesTarget) and target.registry and target.namespace == "shops":
        digest, _ = registries.image(target.registry.host, "shop", b"its only layer")
        located = f"{target.registry.host}/shop@{digest}"
        artifact, run = Artifact(kind="image", digest=digest, location=located, size=1), ""
    elif isinstance(target, KubernetesTarget):
        artifact, run = request.getfixturevalue("cluster").image(request.getfixturevalue("engine"), files), ""
    else:
        bundle = tmp_path / "bundle"
        bundle.mkdir()
        (bundle / "app.py").write_text(files["app.py"])
        artifact, run = Artifact(digest="sha256:" + "a" * 64, location=str(bundle), size=1), "exec python3 app.py"
    return LaunchSpec(
        environment="staging",
        artifact=artifact,
        run=run,
        instances=copies(target),
        health=Health(startup=20, startup_probe=ProbeSettings(period=1, failures=1)),
        stop_grace=2,
        drain=2,
    )


def copies(target: Target) -> int:
    """How many instances to ask for, where one may."""
    return 2 if Capability.INSTANCES in target.capabilities else 1


def up(target: Target, spec: LaunchSpec, name: str = "old", instances: int | None = None) -> Revision:
    instances = instances or copies(target)
    revision = spec.revision("shop", SHA[name])
    target.launch(revision, spec.model_copy(update={"instances": instances}))
    until(lambda: target.ready(revision).ready >= instances)
    return revision


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_platform_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert set(loading.targets()) == TARGETS.keys() - {"fake"}


def test_an_app_that_was_never_launched_is_empty(target: Target) -> None:
    seen = target.observe("shop")
    assert (seen.url, seen.traffic, seen.instances) == (None, Traffic(), {})
    target.route("shop", Traffic())


def names(target: Target, revision: Revision) -> list[str]:
    return [instance.name for instance in target.observe("shop").instances[revision.id]]


def test_an_artifact_that_is_gone_is_said_before_it_is_needed(target: Target, spec: LaunchSpec) -> None:
    assert target.missing(spec) == ""
    location = "127.0.0.1:1/shop@sha256:" + "b" * 64
    gone = spec.artifact.model_copy(update={"location": location, "digest": "sha256:" + "b" * 64})
    if isinstance(target, FakeTarget):
        target.lost = {gone.digest}
    if isinstance(target, RailwayTarget):  # what became of a commit only its repository knows
        gone = gone.model_copy(update={"kind": "image"})
    assert target.missing(spec.model_copy(update={"artifact": gone})) != ""


def test_launching_twice_is_launching_once(target: Target, spec: LaunchSpec) -> None:
    revision = up(target, spec)
    first = names(target, revision)
    target.launch(revision, spec)
    assert names(target, revision) == first
    assert target.observe("shop").ready(revision) == copies(target)


def test_comparing_changes_nothing_and_needs_no_secret(target: Target, spec: LaunchSpec) -> None:
    wanted = spec.model_copy(update={"env": {"TOKEN": SecretRef(secret="a/b")}})
    differences = target.compare(wanted.revision("shop", SHA["old"]), wanted)
    assert differences is None or all(one.unified for one in differences)
    assert target.observe("shop").instances == {}


def test_a_launched_revision_gets_no_traffic_before_it_is_routed(target: Target, spec: LaunchSpec) -> None:
    revision = up(target, spec)
    assert target.observe("shop").traffic == Traffic()
    target.route("shop", Traffic.all_to(revision))
    assert target.observe("shop").live == revision.id


def test_traffic_is_split_and_switched_back(target: Target, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new", 1)
    split = Traffic(weights={old.id: 95, new.id: 5})
    for wanted in (Traffic.all_to(old), split, Traffic.all_to(new), Traffic.all_to(old), Traffic()):
        if wanted == split and Capability.WEIGHTED_ROUTING not in target.capabilities:
            refused(target, split)
            continue
        target.route("shop", wanted)
        assert target.observe("shop").traffic.weights == can(target, wanted, {old.id: copies(target), new.id: 1})
        if wanted.weights and (url := reachable(target)):
            assert versions(target, url, 5) <= {SHA["old" if one == old.id else "new"] for one in wanted.weights}


def can(target: Target, wanted: Traffic, instances: dict[str, int]) -> dict[str, int]:
    """The weights that a target can do: those that are wanted, but where traffic is shared by the number of pods."""
    by_pods = isinstance(target, KubernetesTarget) and not target.gateway and len(wanted.weights) > 1
    return replica_weights.weights(replica_weights.nearest(wanted.weights, instances)) if by_pods else wanted.weights


def refused(target: Target, wanted: Traffic) -> None:
    """A target does not do what it has not declared, and changes nothing."""
    before = target.observe("shop")
    with pytest.raises(TargetError):
        target.route("shop", wanted)
    assert target.observe("shop") == before


def test_rules_previews_and_sessions_are_in_force_as_routed(target: Target, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(old))
    rule = HeaderRule(name="x-beta", value="yes", revision=new.id)
    ruled = Traffic(weights={old.id: 95, new.id: 5}, headers=(rule,))
    sticky = Traffic(weights={old.id: 95, new.id: 5}, sticky=True)
    shown = Traffic(weights={old.id: 100}, preview=new.id)
    for wanted, needed in (
        (ruled, Capability.HEADER_ROUTING),
        (sticky, Capability.SESSIONS),
        (shown, Capability.PREVIEW),
        (Traffic.all_to(old), Capability.ATOMIC_SWITCH),
    ):
        if needed not in target.capabilities:
            refused(target, wanted)
            continue
        target.route("shop", wanted)
        seen = target.observe("shop")
        assert seen.traffic == wanted
        assert (seen.preview_url is not None) is (wanted.preview is not None)
        if seen.preview_url and reachable(target):
            assert versions(target, seen.preview_url, 1) == {SHA["new"]}
    if Capability.PREVIEW in target.capabilities:
        target.route("shop", shown)
    target.retire(new)
    assert target.observe("shop").traffic == Traffic.all_to(old)


def test_nobody_is_routed_to_where_nothing_is_ready(target: Target, spec: LaunchSpec) -> None:
    old = up(target, spec)
    target.route("shop", Traffic.all_to(old))
    with pytest.raises(TargetError, match="no ready instance"):
        target.route("shop", Traffic.all_to(spec.revision("shop", SHA["new"])))
    assert target.observe("shop").live == old.id


def test_what_gets_traffic_is_not_retired(target: Target, spec: LaunchSpec) -> None:
    revision = up(target, spec)
    target.route("shop", Traffic.all_to(revision))
    with pytest.raises(TargetError, match="cannot be retired"):
        target.retire(revision)
    target.retire(revision, keep=1)
    assert target.observe("shop").ready(revision) == 1


def test_retiring_leaves_nothing_and_may_be_repeated(target: Target, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    assert target.drain(old, 2)
    target.retire(old)
    target.retire(old)
    assert set(target.observe("shop").instances) == {new.id}
    assert target.drain(old, 2)


def test_an_app_that_is_forgotten_leaves_only_the_word_on_who_may_write(target: Target, spec: LaunchSpec) -> None:
    target.claim("shop", 5)
    old = up(target, spec)
    target.route("shop", Traffic.all_to(old))
    if isinstance(target, Hosted):  # one app is all there is
        with pytest.raises(TargetError, match="one app's"):
            target.forget("shop")
        assert target.observe("shop").live == old.id
        return
    with pytest.raises(TargetError, match="runs"):
        target.forget("shop")
    assert target.observe("shop").live == old.id
    port = httpx.URL(target.observe("shop").url or "").port

    target.route("shop", Traffic())
    target.retire(old)
    for _ in range(2):
        target.forget("shop")

    seen = target.observe("shop")
    assert (seen.url, seen.traffic, seen.instances) == (None, Traffic(), {})
    assert list(target.logs("shop")) == []
    if isinstance(target, BehindEnvoy):
        assert port
        assert is_free("127.0.0.1", port)
    with pytest.raises(LockLost):
        target.claim("shop", 4)
    if not isinstance(target, DockerTarget):  # the image, which no registry has, went with it
        again = up(target, spec)
        target.route("shop", Traffic.all_to(again))
        assert target.observe("shop").live == again.id


def test_an_older_writer_is_refused(target: Target, spec: LaunchSpec) -> None:
    target.claim("shop", 5)
    with pytest.raises(LockLost):
        target.claim("shop", 4)
    up(target, spec)


def test_a_secret_without_a_value_is_refused(target: Target, spec: LaunchSpec) -> None:
    with pytest.raises(TargetError, match="secrets"):
        target.launch(
            spec.revision("shop", SHA["old"]), spec.model_copy(update={"env": {"TOKEN": SecretRef(secret="a/b")}})
        )
    assert target.observe("shop").instances == {}


def test_requests_are_counted_by_revision(target: Target, spec: LaunchSpec) -> None:
    revision = up(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = target.measure("shop")
    if url := reachable(target):
        versions(target, url, 30)
    if Capability.METRICS not in target.capabilities:
        assert target.measure("shop").counts == {}
        return
    until(lambda: target.measure("shop").since(before, revision).requests >= 30)
    assert target.measure("shop").since(before, revision).errors == 0


def test_logs_name_the_revision(target: Target, spec: LaunchSpec) -> None:
    revision = up(target, spec)
    target.route("shop", Traffic.all_to(revision))
    lines = list(target.logs("shop"))
    assert len(lines) >= 1
    assert all(revision.id in line.split(": ")[0] for line in lines)
    assert list(target.logs("shop", "fffffff")) == []


def reachable(target: Target) -> str | None:
    """Where users find the app; nobody finds the fake one."""
    url = target.observe("shop").url
    return None if isinstance(target, FakeTarget) else url


def versions(target: Target, url: str, times: int) -> set[str]:
    """Who answers so many requests, each of them with success."""
    found = set()
    with httpx.Client(headers=target.request_headers, trust_env=False, verify=tls.for_url(url), timeout=10) as client:
        for _ in range(times):
            answer = client.get(url)
            assert answer.status_code == 200
            found.add(answer.json()["version"])
    return found


def _mark(one: psutil.Process) -> str | None:
    try:
        return one.environ().get("HEADWAY_SUPERVISED_BY")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
