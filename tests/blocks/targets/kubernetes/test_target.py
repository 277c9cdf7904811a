"""API server failures with a stand-in; pod failures on a real cluster, where the tests have one."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.registries.oci import Registry
from blocks.secrets import resolve
from blocks.targets.kubernetes import api_errors, labels, scaling
from blocks.targets.kubernetes.api_client import DEPLOYMENT, POD, SERVICE
from blocks.targets.kubernetes.container_spec import DEFAULT_CONTAINER
from blocks.targets.kubernetes.routing import router
from blocks.targets.kubernetes.target import KubernetesTarget
from headway.domain.errors import LockLost, NotFound, TargetError, UsageError
from headway.domain.plan import Probe
from headway.domain.ports import Command
from headway.domain.revision import Artifact, Autoscale, Health, LaunchSpec, Manifest, ProbeSettings, Revision
from headway.domain.traffic import InstanceReadiness, Traffic
from headway.ledger import Ledger
from headway.ledger.adoption import adopt
from headway.rollout.load_generator import Load
from tests.e2e.conftest import APP, GOOD
from tests.standins.clusters import Borrowed, Namespace
from tests.standins.docker_engine import Engine
from tests.standins.kubernetes_api import ApiServer, Trouble, serving

pytestmark = pytest.mark.slow

ARTIFACT = Artifact(kind="image", digest="sha256:" + "a" * 64, location="127.0.0.1:1/shop@sha256:" + "a" * 64, size=1)
SPEC = LaunchSpec(environment="staging", artifact=ARTIFACT, instances=2, health=Health(startup=20), stop_grace=1)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "IN_FORCE", 3.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ApiServer, Path]]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def api(served: tuple[ApiServer, Path]) -> ApiServer:
    return served[0]


@pytest.fixture
def target(served: tuple[ApiServer, Path]) -> KubernetesTarget:
    return KubernetesTarget(kubeconfig=served[1], namespace="shops", settle=0, keep=1)


def launched(target: KubernetesTarget, number: int, spec: LaunchSpec = SPEC, *, ready: bool = True) -> Revision:
    revision = spec.revision("shop", str(number) * 40)
    target.launch(revision, spec)
    if ready:
        until(lambda: target.ready(revision).ready >= spec.instances)
    return revision


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end
    return found


# --- an API server at its worst ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
def test_transient_error_is_retried(api: ApiServer, target: KubernetesTarget, status: int) -> None:
    trouble = [
        Trouble("PATCH", "/services/", status, status),
        Trouble("PATCH", "/deployments/", status),
        Trouble("GET", "/pods", status),
    ]
    api.trouble += trouble
    revision = launched(target, 1)
    target.route("shop", Traffic.all_to(revision))
    assert target.observe("shop").live == revision.id
    assert [one.answers for one in trouble] == [[], [], []]


def test_retry_after_of_a_busy_server_is_obeyed(api: ApiServer, target: KubernetesTarget) -> None:
    launched(target, 1)
    rest = Trouble("GET", "/services/shop", 429, headers={"Retry-After": "1"})
    api.trouble.append(rest)
    begun = time.monotonic()
    target.observe("shop")
    assert time.monotonic() - begun >= 1
    assert rest.answers == []


def test_retries_of_a_failing_server_are_limited(api: ApiServer, target: KubernetesTarget) -> None:
    launched(target, 1)
    api.trouble.append(Trouble("GET", "/services/shop", *[503] * 20))
    with pytest.raises(TargetError, match=r"kubernetes/shops: get Service shop: there is trouble"):
        target.observe("shop")


def test_unreachable_server_is_an_error(tmp_path: Path, target: KubernetesTarget, monkeypatch: Any) -> None:
    monkeypatch.setattr(api_errors, "RETRIES", replace(api_errors.RETRIES, attempts=1))
    assert target.kubeconfig is not None
    text = target.kubeconfig.read_text()
    port = text.partition("http://127.0.0.1:")[2].partition('"')[0]
    target.kubeconfig.write_text(text.replace(port, "1"))
    with pytest.raises(TargetError, match=r"API server http://127.0.0.1:1 does not answer"):
        target.observe("shop")


@pytest.mark.parametrize("text", ["", "no: kubeconfig", "{", "clusters: 3"])
def test_invalid_kubeconfig_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(TargetError, match="no Kubernetes cluster"):
        KubernetesTarget(kubeconfig=tmp_path / "config").observe("shop")
    with pytest.raises(TargetError, match="no Kubernetes cluster"):
        KubernetesTarget(kubeconfig_text=text or "-").observe("shop")


def test_inline_kubeconfig_is_accepted_and_never_shown(target: KubernetesTarget) -> None:
    assert target.kubeconfig is not None
    told = KubernetesTarget(kubeconfig_text=target.kubeconfig.read_text(), namespace="shops", settle=0)
    launched(told, 1)
    assert "stand-in" not in repr(told)


@pytest.mark.parametrize("wrong", ["https://{name}.example.com", "https://{}.example.com", "https://{app.example.com"])
def test_url_with_an_unknown_placeholder_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match=r"may name \{app\}, \{environment\} and \{namespace\}"):
        KubernetesTarget(url=wrong)


@pytest.mark.parametrize("answers", [(410,), (0,), (500, 410), (200,)])
def test_expired_or_broken_watch_lists_again(
    api: ApiServer, target: KubernetesTarget, answers: tuple[int, ...]
) -> None:
    api.unready.add(ARTIFACT.location)
    revision = launched(target, 1, ready=False)
    api.trouble.append(Trouble("GET", "watch=True", *answers))
    threading.Timer(0.5, lambda: get_well(api)).start()
    until(lambda: target.ready(revision).ready == 2)


def get_well(api: ApiServer) -> None:
    with api.changed:
        for pod in api._of("pods"):
            pod["status"]["conditions"][0]["status"] = "True"
            api.write("pods", pod)


def test_waiting_uses_a_watch_and_does_not_poll(api: ApiServer, target: KubernetesTarget) -> None:
    api.unready.add(ARTIFACT.location)
    revision = launched(target, 1, ready=False)
    asked = len(api.asked)
    threading.Timer(1.0, lambda: get_well(api)).start()
    assert target.ready(revision).ready == 2
    assert len(api.asked) - asked < 15


def test_concurrent_writers_retry_on_conflict(api: ApiServer, target: KubernetesTarget) -> None:
    target.claim("shop", 1)
    api.trouble.append(Trouble("PUT", "shop-headway", 409, 409))
    target.claim("shop", 2)
    with pytest.raises(LockLost):
        target.claim("shop", 1)


def test_writer_with_an_older_token_changes_nothing(served: tuple[ApiServer, Path], target: KubernetesTarget) -> None:
    target.claim("shop", 1)
    revision = launched(target, 1)
    other = KubernetesTarget(kubeconfig=served[1], namespace="shops", settle=0)
    other.claim("shop", 2)
    with pytest.raises(LockLost):
        target.route("shop", Traffic.all_to(revision))
    with pytest.raises(LockLost):
        target.retire(revision)
    with pytest.raises(LockLost):
        launched(target, 2)
    other.route("shop", Traffic.all_to(revision))


def test_foreign_service_is_not_changed(api: ApiServer, target: KubernetesTarget) -> None:
    theirs = {"metadata": {"name": "shop", "labels": {}}, "spec": {"selector": {"app": "shop"}}}
    api.write("services", theirs)
    with pytest.raises(
        TargetError, match=r"environments/staging: the Service shop in namespace shops is not Headway's"
    ):
        launched(target, 1)
    assert api.things["services", "shop"]["spec"]["selector"] == {"app": "shop"}


def test_other_environment_cannot_use_the_namespace(target: KubernetesTarget) -> None:
    launched(target, 1)
    with pytest.raises(TargetError, match="is of environment staging"):
        launched(target, 2, SPEC.model_copy(update={"environment": "production"}))


def test_stale_endpoints_are_an_error(api: ApiServer, target: KubernetesTarget, monkeypatch: Any) -> None:
    old, new = launched(target, 1), launched(target, 2)
    target.route("shop", Traffic.all_to(old))
    monkeypatch.setattr(api, "_serve", lambda *_: None)
    with pytest.raises(TargetError, match=f"Service shop has endpoints of {old.id}"):
        target.route("shop", Traffic.all_to(new))


def test_old_revisions_are_removed_and_recent_ones_kept(api: ApiServer, target: KubernetesTarget) -> None:
    foreign = {"metadata": {"name": "shop-of-somebody"}, "spec": {"replicas": 0, "template": {"metadata": {}}}}
    api.things["deployments", "shop-of-somebody"] = foreign
    first, second, bad, third = (launched(target, number) for number in (1, 2, 3, 4))
    for revision in (first, second, third):
        target.route("shop", Traffic.all_to(revision))
    for revision in (first, second, bad):
        target.retire(revision)
    left = {name for kind, name in api.things if kind == "deployments"}
    assert left == {labels.deployment(second), labels.deployment(third), "shop-of-somebody"}
    assert ("secrets", labels.deployment(first)) not in api.things
    target.launch(second, SPEC)  # a rollback
    assert labels.ENDED not in api.things["deployments", labels.deployment(second)]["metadata"]["annotations"]


def test_weight_is_as_close_as_pods_allow(api: ApiServer, target: KubernetesTarget) -> None:
    four = SPEC.model_copy(update={"instances": 4})
    warm, old, new = launched(target, 1), launched(target, 2, four), launched(target, 3, four)
    target.route("shop", Traffic.all_to(old))
    target.route("shop", Traffic(weights={old.id: 95, new.id: 5}))
    assert target.observe("shop").traffic.weights == {old.id: 80, new.id: 20}
    front = api.things["services", "shop"]
    assert {pod["metadata"]["labels"][labels.REVISION] for pod in api.serving(front)} == {old.id, new.id}
    assert warm.id in target.observe("shop").instances
    target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
    assert target.observe("shop").traffic.weights == {old.id: 50, new.id: 50}


def terminating(api: ApiServer) -> list[str]:
    return [pod["metadata"]["name"] for pod in api._of("pods") if "deletionTimestamp" in pod["metadata"]]


def test_retired_pods_finish_while_the_rollout_goes_on(api: ApiServer, target: KubernetesTarget) -> None:
    old, new = launched(target, 1), launched(target, 2)
    target.route("shop", Traffic.all_to(new))
    api.grace = 5.0
    target.retire(old)
    assert len(terminating(api)) == SPEC.instances
    assert list(target.observe("shop").instances) == [new.id]


def test_app_that_stops_before_it_starts_does_not_run_twice(api: ApiServer, target: KubernetesTarget) -> None:
    old = launched(target, 1)
    target.route("shop", Traffic.all_to(old))
    api.grace = 1.0
    target.route("shop", Traffic())
    target.retire(old)
    assert terminating(api)
    launched(target, 2)
    assert not terminating(api)


def test_objects_of_the_app_stay_until_the_last_pod_that_uses_them_is_gone(
    api: ApiServer, target: KubernetesTarget
) -> None:
    old, new = launched(target, 1, with_manifests(old="1")), launched(target, 2, with_manifests(new="2"))
    target.route("shop", Traffic.all_to(new))
    api.grace = 1.0
    target.retire(old)
    assert not terminating(api)
    assert "old" not in standing_there(api)


@pytest.mark.parametrize(("hook", "seconds"), [({}, 0.0), ({"preStop": {"sleep": {"seconds": 5}}}, 5.0)])
def test_pause_of_a_terminating_pod(hook: dict[str, Any], seconds: float) -> None:
    containers = [{"name": "proxy"}, {"name": "app", "lifecycle": hook}]
    template = {"metadata": {"annotations": {DEFAULT_CONTAINER: "app"}}, "spec": {"containers": containers}}
    assert scaling.pause({"spec": {"template": template}}) == seconds


async def test_rollback_works_without_a_ledger(
    served: tuple[ApiServer, Path], target: KubernetesTarget, tmp_path: Path
) -> None:
    secret = SPEC.model_copy(update={"env": {"LEVEL": "info", "TOKEN": "hunter2hunter2"}, "secrets": ("TOKEN",)})
    target.claim("shop", 7)
    named = [secret.model_copy(update={"release": f"shop#{number}"}) for number in (12, 13, 14)]
    first, second, third = (launched(target, number, one) for number, one in enumerate(named, 1))
    for revision in (first, second, third):
        target.route("shop", Traffic.all_to(revision))
    target.retire(second)
    with Ledger.open(f"sqlite:///{tmp_path / 'another.db'}") as ledger:
        told = adopt(ledger, "shop", "kubernetes/prod", target)
        assert told == ("staging", [first.id, second.id, third.id])
        with pytest.raises(UsageError, match=f"{third.id} is live"):
            adopt(ledger, "shop", "kubernetes/prod", target)
        assert ledger.rollouts.live("shop", "staging") == third.id
        assert [(one.name, one.sha) for one in ledger.releases.recent("shop", 1)] == [("shop#14", third.sha)]
        assert ledger.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by="ann").name == "shop#15"
        assert ledger.rollouts.previous("shop", "staging") == second.id
        back, spec = ledger.revisions.find("shop", second.id, environment="staging")
        assert "hunter2" not in spec.model_dump_json()
        lock = ledger.locks.acquire("shop", "staging", holder="rollback", revision=back.id, lease=30)
    assert lock is not None
    other = KubernetesTarget(kubeconfig=served[1], namespace="shops", settle=0)
    other.claim("shop", lock.token)
    before = dict(served[0].things["secrets", labels.deployment(second)]["data"])
    other.launch(back, await resolve(spec))
    assert served[0].things["secrets", labels.deployment(second)]["data"] == before
    other.route("shop", Traffic.all_to(back))
    assert other.observe("shop").live == second.id


def test_nothing_to_adopt_on_an_empty_cluster(target: KubernetesTarget, tmp_path: Path) -> None:
    with (
        Ledger.open(f"sqlite:///{tmp_path / 'another.db'}") as ledger,
        pytest.raises(NotFound, match="kubernetes/prod has no record of a revision of shop"),
    ):
        adopt(ledger, "shop", "kubernetes/prod", target)


def test_documented_role_allows_every_request(api: ApiServer, target: KubernetesTarget) -> None:
    target.claim("shop", 1)
    ranged = SPEC.model_copy(update={"autoscale": Autoscale(min=2, max=4, cpu=70)})
    old, new = launched(target, 1, ranged), launched(target, 2, ranged)
    for traffic in (Traffic.all_to(old), Traffic(weights={old.id: 95, new.id: 5}), Traffic.all_to(new)):
        target.route("shop", traffic)
    target.route("shop", Traffic(weights={new.id: 100}, preview=old.id))
    for method in ("GET", "POST"):
        assert target.send("shop", new.id, Probe(method=method, path="/")) == 200
    list(target.logs("shop"))
    target.retire(old)
    target.claim("shop", 2)
    target.destroy("shop")
    assert set(api.asked) <= set(allowed())
    splitting = ("httproutes", "ingresses")  # tried with a Gateway and an ingress class, on a real cluster
    unused = {(verb, resource) for verb, resource in allowed() if resource not in splitting} - set(api.asked)
    watched = {
        ("watch", "endpointslices"),
        ("watch", "pods"),
        ("list", "events"),
    }  # when there is something to wait for
    commands = {("create", "pods"), ("get", "pods"), ("delete", "pods")}  # of migrations, tried on a real cluster
    assert unused <= watched | commands, "more than is needed"


def allowed() -> Iterator[tuple[str, str]]:
    """Verb and resource of each rule of the Role in docs/."""
    from ruamel.yaml import YAML

    role = YAML(typ="safe").load(Path("docs/kubernetes-role.yaml"))
    for rule in role["rules"]:
        yield from itertools.product(rule["verbs"], rule["resources"])


# --- manifests of the app's own ------------------------------------------------------------------------------------


def with_manifests(**data: str) -> LaunchSpec:
    """The app's Deployment, another one of the same image, and a ConfigMap for each argument."""
    label = {"app": "shop"}
    image = "127.0.0.1:1/shop:latest"

    def deployment(name: str, **container: Any) -> dict[str, Any]:
        pod = {"containers": [{"name": "main", "image": image, **container}]}
        template = {"metadata": {"labels": label}, "spec": pod}
        spec = {"selector": {"matchLabels": label}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}

    things = [deployment("shop", ports=[{"containerPort": 3000}]), deployment("worker", args=[*data])]
    for name, value in data.items():
        metadata = {"name": name}
        things.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}})
    manifests = tuple(Manifest(source=f"k8s/all.yaml#{at}", content=one) for at, one in enumerate(things, 1))
    return SPEC.model_copy(update={"manifests": manifests})


def standing_there(api: ApiServer) -> dict[str, Any]:
    """The app's own ConfigMaps, and the worker's environment."""
    worker = api.things.get(("deployments", "worker"))
    told = {"worker": worker["spec"]["template"]["spec"]["containers"][0]["args"]} if worker else {}
    maps = {name: one["data"]["a"] for (kind, name), one in api.things.items() if kind == "configmaps" if len(name) < 5}
    return told | maps


def test_other_objects_follow_the_serving_revision_and_roll_back_with_it(
    api: ApiServer, target: KubernetesTarget
) -> None:
    target.claim("shop", 1)
    old = launched(target, 1, with_manifests(both="1", old="1"))
    assert standing_there(api) == {"both": "1", "old": "1"}
    target.route("shop", Traffic.all_to(old))
    assert standing_there(api) == {"both": "1", "old": "1", "worker": ["both", "old"]}
    new = launched(target, 2, with_manifests(both="2", new="2"))
    assert standing_there(api) == {"both": "2", "old": "1", "new": "2", "worker": ["both", "old"]}
    target.retire(new)
    assert standing_there(api) == {"both": "1", "old": "1", "worker": ["both", "old"]}
    launched(target, 2, with_manifests(both="2", new="2"))
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert standing_there(api) == {"both": "2", "new": "2", "worker": ["both", "new"]}
    assert [one.id for one, _ in target.remembered("shop").revisions] == [old.id, new.id]
    target.destroy("shop")
    assert standing_there(api) == {}


def test_plan_changes_nothing(api: ApiServer, target: KubernetesTarget) -> None:
    old = launched(target, 1, with_manifests(both="1", old="1"))
    target.route("shop", Traffic.all_to(old))
    before = dict(api.things)
    after = with_manifests(both="2")
    found = {one.name: one.unified[2:] for one in target.compare(after.revision("shop", "2" * 40), after)}
    assert [line for line in found["ConfigMap both"] if line[0] in "+-"] == ["-  a: '1'", "+  a: '2'"]
    assert all(line[0] in "@-" for line in found["ConfigMap old"])
    assert "worker" in str(found.keys())
    assert api.things == before


# --- what a cluster does to pods -----------------------------------------------------------------------------------


@pytest.fixture
def real(namespace: Namespace) -> KubernetesTarget:
    return KubernetesTarget(
        kubeconfig=namespace.kubeconfig,
        namespace=namespace.name,
        registry=Registry(host=namespace.registry, plain_http=True),
        keep=1,
    )


def app(cluster: Borrowed, engine: Engine, code: str = GOOD + APP, *, user: str = "10001:10001") -> LaunchSpec:
    often = ProbeSettings(period=1, failures=1)
    return LaunchSpec(
        environment="staging",
        artifact=cluster.image(engine, {"app.py": code}, user=user),
        instances=2,
        env={"TOKEN": "hunter2hunter2"},
        secrets=("TOKEN",),
        memory=64 * 2**20,
        health=Health(startup=20, startup_probe=often, readiness_probe=often),
        stop_grace=2,
    )


def failure(target: KubernetesTarget, spec: LaunchSpec, words: str = "") -> str:
    """Wait for a failure and return its reason; with `words`, wait until the detail contains them."""
    revision = launched(target, 1, spec, ready=False)

    def told() -> InstanceReadiness | None:
        seen = target.ready(revision)
        assert seen.ready < spec.instances
        return seen if seen.failed or (words and words in seen.detail) else None

    return str(until(told, 90).detail)


DIES = "import os, sys\nprint('no', os.environ['TOKEN'], 'here', flush=True)\nsys.exit(3)\n"
EATS = "eaten = []\nwhile True:\n    eaten.append(bytearray(8 * 2**20))\n"
SICK = "def answer(path):\n    return 500, {}\n" + APP


@pytest.mark.parametrize(
    ("code", "words"),
    [(DIES, r"keeps dying: it exited with code 3: no \*+ here"), (EATS, r"out of memory \(OOMKilled\).* is 64Mi")],
)
def test_crash_loop_fails_with_its_reason(
    real: KubernetesTarget, cluster: Borrowed, engine: Engine, code: str, words: str
) -> None:
    found = failure(real, app(cluster, engine, code))
    assert re.search(words, found), found


def test_missing_image_is_an_error(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    spec = app(cluster, engine)
    nowhere = spec.artifact.location.partition("@")[0] + "@sha256:" + "b" * 64
    lost = spec.model_copy(update={"artifact": spec.artifact.model_copy(update={"location": nowhere})})
    assert "not found" in failure(real, lost)
    assert "not in its registry any more" in str(real.missing(lost))


def test_image_running_as_root_is_refused(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    assert "runAsNonRoot" in failure(real, app(cluster, engine, user="0"))


def test_exceeded_quota_is_reported(
    real: KubernetesTarget, cluster: Borrowed, engine: Engine, namespace: Namespace
) -> None:
    cluster.limit_pods(namespace, 1)
    assert "exceeded quota" in failure(real, app(cluster, engine))


def test_messages_of_scheduler_and_probes_are_quoted(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    greedy = app(cluster, engine).model_copy(update={"cpu": 1000})
    assert "Insufficient cpu" in failure(real, greedy, "Insufficient cpu")
    assert "500" in failure(real, app(cluster, engine, SICK), "500")


def test_every_switch_under_load_drops_nothing(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    spec = app(cluster, engine, (Path("bench") / "kubernetes_app.py").read_text())
    old = launched(real, 1, spec)
    real.route("shop", Traffic.all_to(old))
    url = real.observe("shop").url
    assert url is not None
    with Load(url, rate=100) as load:
        new = launched(real, 2, spec)
        real.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
        real.retire(old, keep=1)
        real.route("shop", Traffic.all_to(new))
        real.retire(old)
        real.launch(old, spec)  # the rollback
        until(lambda: real.ready(old).ready == 2)
        real.route("shop", Traffic.all_to(old))
        real.retire(new)
    assert load.failures == []
    assert load.sent > 500
    assert real.observe("shop").live == old.id


def test_command_runs_once_with_the_environment_of_the_app(
    real: KubernetesTarget, cluster: Borrowed, engine: Engine
) -> None:
    spec = app(cluster, engine)
    revision, said = spec.revision("shop", "1" * 40), list[str]()
    asked = 'echo "$HEADWAY_APP ${PORT-without a port} $TOKEN"; exit 3'
    assert real.execute(revision, spec, Command(asked, 60, threading.Event(), said.append)) == 3
    assert said == ["shop without a port ********"]
    adopted = spec.model_copy(update={"env": {}})  # only the cluster has the value
    real.launch(revision, spec)
    said.clear()
    assert real.execute(revision, adopted, Command(asked, 60, threading.Event(), said.append)) == 3
    assert said == ["shop without a port ********"]
    real.retire(revision)
    assert real.execute(revision, spec, Command("exit 0", 60, threading.Event(), said.append)) == 0
    assert real.observe("shop").instances == {}
    with pytest.raises(TargetError, match="timed out after 2 s"):
        real.execute(revision, spec, Command("exec sleep 60", 2, threading.Event(), said.append))
    stopped = threading.Event()
    threading.Timer(3, stopped.set).start()
    with pytest.raises(TargetError, match="stopped"):
        real.execute(revision, spec, Command("exec sleep 60", 60, stopped, said.append))
    until(lambda: real._cluster.get(POD, labels.command("shop")) is None)


def test_logs_are_followed(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    code = "import os, threading, time\n" + GOOD.replace(
        "    return", "    print('asked with', os.environ['TOKEN'], flush=True)\n    return"
    )
    revision = launched(real, 1, app(cluster, engine, code + APP))
    real.route("shop", Traffic.all_to(revision))
    line = next(one for one in real.logs("shop", follow=True) if "asked" in one.text)
    assert revision.id in line.instance
    assert line.text == "asked with ********"
    assert line.at is not None


def test_deleted_pod_is_recreated(
    real: KubernetesTarget, cluster: Borrowed, engine: Engine, namespace: Namespace
) -> None:
    revision = launched(real, 1, app(cluster, engine))
    real.route("shop", Traffic.all_to(revision))
    gone = real.observe("shop").instances[revision.id][0].name
    cluster.core.delete_namespaced_pod(gone, namespace.name)
    until(lambda: gone not in [one.name for one in real.observe("shop").instances[revision.id]])
    until(lambda: real.ready(revision).ready == 2)


def test_destroy_removes_every_object(real: KubernetesTarget, cluster: Borrowed, engine: Engine) -> None:
    revision = launched(real, 1, app(cluster, engine))
    real.route("shop", Traffic.all_to(revision))
    real.destroy("shop")
    for kind in (DEPLOYMENT, SERVICE):
        assert real._cluster.find(kind, labels.selector(app="shop")) == []
    until(lambda: real._cluster.find(POD, labels.selector(app="shop")) == [])
