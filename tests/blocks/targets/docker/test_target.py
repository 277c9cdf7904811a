"""Behaviour of the docker target only, on a real engine: limits, engine failures, retention."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, create_server, socket

import httpx
import pytest
from docker import APIClient
from docker import errors as docker_errors
from docker import types as docker_types

from blocks.registries.oci import Registry
from blocks.targets.docker.target import DockerTarget
from headway.domain.errors import TargetError
from headway.domain.log_lines import LogLine
from headway.domain.revision import LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.rollout.load_generator import Load
from headway.testing.contracts import SHA, start, until
from tests.contracts import targets
from tests.e2e.conftest import APP, GOOD
from tests.standins.docker_engine import Engine
from tests.standins.ports import free_port
from tests.standins.registries import serving

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker")]


@pytest.fixture
def spec(engine: Engine) -> LaunchSpec:
    return targets.image_spec(engine)


@pytest.fixture
def target(engine: Engine, tmp_path: Path) -> Iterator[DockerTarget]:
    with targets.docker(engine, tmp_path / "target") as made:
        yield made


def url(target: DockerTarget) -> str:
    found = target.observe("shop").url
    assert found is not None
    return found


def app(engine: Engine, code: str, dockerfile: str = 'CMD ["python3", "app.py"]') -> dict[str, object]:
    """For `model_copy`: an image whose `answer(path)` is this."""
    return {"artifact": engine.image({"app.py": code + APP}, name=secrets.token_hex(3), dockerfile=dockerfile)}


def test_switching_and_replacing_under_load_drops_nothing(target: DockerTarget, spec: LaunchSpec) -> None:
    old = start(target, spec)
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=150) as load:
        for _ in range(2):
            new = start(target, spec, "new")
            target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
            target.retire(old, keep=1)
            target.route("shop", Traffic.all_to(new))
            target.drain(old, 5)
            target.retire(old)
            old = start(target, spec)
            target.route("shop", Traffic.all_to(old))
            target.retire(new)
    assert load.sent > 100
    assert load.failures == []


def test_container_has_minimal_privileges(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    limited = spec.model_copy(update={"memory": 128 * 2**20, "cpu": 0.5, "release": "shop#7", "env": {"COLOUR": "red"}})
    revision = start(target, limited, instances=1)
    (container,) = engine.client.containers.list()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (128 * 2**20, 128 * 2**20, 500_000_000)
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    said = {key: container.labels[f"headway.{key}"] for key in ("app", "environment", "revision", "release")}
    assert said == {"app": "shop", "environment": "staging", "revision": revision.id, "release": "shop#7"}
    assert container.exec_run(["/bin/sh", "-c", "echo > /app/x"]).exit_code != 0
    assert container.exec_run(["/bin/sh", "-c", "echo > /tmp/x"]).exit_code == 0
    assert "COLOUR=red" in container.attrs["Config"]["Env"]


def test_state_is_rebuilt_from_the_engine(target: DockerTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    revision = start(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = target.observe("shop")
    state = tmp_path / "target" / "apps" / "shop" / "state.json"
    state.unlink()
    seen = target.observe("shop")
    assert {one.name for one in seen.instances[revision.id]} == {one.name for one in before.instances[revision.id]}
    assert seen.live == revision.id
    assert target.ready(revision).ready == 2


def test_worker_without_its_files_recovers_the_state(target: DockerTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    old = start(target, spec)
    target.route("shop", Traffic.all_to(old))
    before = target.observe("shop")
    target._supervisor.shut_down()
    shutil.rmtree(tmp_path / "target")
    seen = target.observe("shop")
    assert {one.name for one in seen.instances[old.id]} == {one.name for one in before.instances[old.id]}
    assert seen.url == before.url
    assert not seen.traffic.weights  # unknown: the next release or rollback sets them
    new = start(target, spec, "new")
    target.route("shop", Traffic.all_to(new))
    assert httpx.get(str(before.url), trust_env=False).json()["version"] == new.sha
    target.retire(old)
    assert set(target.observe("shop").instances) == {new.id}


def test_container_removed_by_hand_is_reported_and_recreated(
    target: DockerTarget, spec: LaunchSpec, engine: Engine
) -> None:
    revision = start(target, spec)
    target.route("shop", Traffic.all_to(revision))
    engine.client.containers.list()[0].remove(force=True)
    until(lambda: target.observe("shop").ready(revision) == 1)
    ill = next(one for one in target.observe("shop").instances[revision.id] if not one.ready)
    assert ill.detail == "its container is gone: somebody removed it"
    assert "removed" in target.ready(revision).detail
    target.launch(revision, spec)
    until(lambda: target.ready(revision).ready == 2)


def test_network_without_a_free_address_is_an_error(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    free = docker_types.IPAMPool(subnet=f"{engine.network}.254.0/30")  # a gateway and one more
    api = engine.client.api
    api.create_network(target.namespace, ipam=docker_types.IPAMConfig(pool_configs=[free]))
    only = start(target, spec, instances=1)
    with pytest.raises(TargetError, match="no address is left for another instance; containers have 1"):
        target.launch(only, spec.model_copy(update={"instances": 2}))
    assert target.ready(only).ready == 1


def test_crashed_container_restarts_at_the_same_address(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    revision = start(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = {one.name: one for one in target.observe("shop").instances[revision.id]}
    for container in engine.client.containers.list():
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    until(lambda: all(one.run != before[one.name].run for one in target.observe("shop").instances[revision.id]))
    until(lambda: target.observe("shop").ready(revision) == 2)
    after = {one.name: one for one in target.observe("shop").instances[revision.id]}
    assert {name: one.address for name, one in after.items()} == {name: one.address for name, one in before.items()}


def failure(target: DockerTarget, revision: Revision) -> str:
    """Wait until the revision has failed; return the reason. Between two crashes it looks as if it ran."""
    said: list[str] = []

    def failed() -> bool:
        readiness = target.ready(revision)
        said.append(readiness.detail)
        return readiness.failed

    until(failed)
    return said[-1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no such table: users')\n", ["keeps dying: it exited with code 1", "no such table: users"]),
        (
            "import time\ntime.sleep(3)\nraise SystemExit('no such table: users')\n",
            ["keeps dying: it", "no such table: users"],
        ),
        ("kept = bytearray(200 << 20)\n" + GOOD, ["out of memory (OOMKilled): its limit is 64 MiB"]),
    ],
    ids=["exits at once", "exits after a while", "out of memory"],
)
def test_crash_loop_fails_with_its_reason(
    target: DockerTarget, spec: LaunchSpec, engine: Engine, code: str, words: list[str]
) -> None:
    broken = spec.model_copy(update={"instances": 1, "memory": 64 << 20, **app(engine, code)})
    revision = broken.revision("shop", SHA["new"])
    target.launch(revision, broken)
    detail = failure(target, revision)
    assert all(word in detail for word in words), detail


@pytest.mark.parametrize("fails", [True, False])
def test_healthcheck_of_the_image_is_used(target: DockerTarget, spec: LaunchSpec, engine: Engine, fails: bool) -> None:
    check = f"HEALTHCHECK --interval=30s --retries=1 CMD echo no database; exit {int(fails)}\n"
    checked = spec.model_copy(update={"instances": 1, **app(engine, GOOD, check + 'CMD ["python3", "app.py"]')})
    revision = checked.revision("shop", SHA["new"])
    target.launch(revision, checked)
    if fails:
        until(lambda: "its HEALTHCHECK fails: no database" in target.ready(revision).detail)
        assert target.ready(revision).ready == 0
        with pytest.raises(TargetError, match="no ready instance"):
            target.route("shop", Traffic.all_to(revision))
    else:
        until(lambda: target.ready(revision).ready == 1)


def test_missing_image_is_an_error(target: DockerTarget, spec: LaunchSpec) -> None:
    location = "127.0.0.1:1/shop@sha256:" + "b" * 64
    missing = spec.model_copy(update={"artifact": spec.artifact.model_copy(update={"location": location})})
    old, new = start(target, spec, instances=1), spec.revision("shop", SHA["new"])
    target.route("shop", Traffic.all_to(old))
    with pytest.raises(TargetError, match="is not on the engine, and it cannot pull it"):
        target.launch(new, missing)
    target.retire(new)  # the rollback
    assert set(target.observe("shop").instances) == {old.id}
    assert httpx.get(url(target), trust_env=False).status_code == 200


def test_container_reactivated_during_its_retirement_is_kept(
    target: DockerTarget, spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = start(target, spec, instances=1), start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    with monkeypatch.context() as broken:
        broken.setattr(
            "blocks.targets.docker.target.remove_stopped", lambda *_: (_ for _ in ()).throw(TargetError("busy"))
        )
        with pytest.raises(TargetError, match="busy"):
            target.retire(old)
    target.launch(old, spec.model_copy(update={"instances": 1}))
    until(lambda: target.ready(old).ready == 1)
    target.route("shop", Traffic.all_to(old))
    target.retire(new)
    assert httpx.get(url(target), trust_env=False).json()["version"] == SHA["old"]


def test_command_missing_in_the_image_is_an_error(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    wrong = spec.model_copy(update=app(engine, GOOD, 'CMD ["gunicorn"]'))
    revision = spec.revision("shop", SHA["new"])
    target.launch(revision, wrong)
    detail = failure(target, revision)
    assert "code 127" in detail
    assert "gunicorn" in detail


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("exit(7)", "it exited with code 7"),
        ("bytearray(200 << 20)", "out of memory (OOMKilled): its limit is 64 MiB"),
    ],
    ids=["exit code", "out of memory"],
)
def test_reason_of_a_crash_loop_is_known_while_it_runs(
    target: DockerTarget, spec: LaunchSpec, engine: Engine, ends: str, reason: str
) -> None:
    command = f'CMD ["python3", "-c", "import time; time.sleep(1); {ends}"]'
    wrong = spec.model_copy(update={"instances": 1, "memory": 64 << 20, **app(engine, GOOD, command)})
    revision = wrong.revision("shop", SHA["new"])
    target.launch(revision, wrong)
    details: list[str] = []

    def failed_while_running() -> bool:
        details.append(failure(target, revision))
        return "it was started" in details[-1]

    until(failed_while_running)
    assert reason in details[-1]


def test_unreachable_engine_is_an_error(spec: LaunchSpec, tmp_path: Path) -> None:
    target = DockerTarget(directory=tmp_path / "other", url=f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(TargetError, match="does not answer"):
        target.launch(spec.revision("shop", SHA["new"]), spec)
    with pytest.raises(TargetError, match="does not answer"):
        target.observe("shop")


def test_containers_survive_the_end_of_the_engine(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    old = start(target, spec)
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=50) as load:
        engine.stop(signal.SIGKILL)
        with pytest.raises(TargetError, match="does not answer"):
            target.launch(spec.revision("shop", SHA["new"]), spec)
    assert load.sent > 0
    assert load.failures == []
    engine.start()
    assert target.revive("shop")
    until(lambda: target.observe("shop").ready(old) == 2)
    assert target.observe("shop").live == old.id
    new = start(target, spec, "new")
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert set(target.observe("shop").instances) == {new.id}


def test_last_images_are_kept_and_foreign_ones_are_not_changed(
    target: DockerTarget, spec: LaunchSpec, engine: Engine
) -> None:
    target.keep = 2
    foreign = engine.client.containers.create(spec.artifact.location, name="somebody-elses")
    try:
        images, released = [], list[Revision]()
        for number in range(5):
            made = spec.model_copy(update={"instances": 1, **app(engine, GOOD + f"# {number}\n")})
            images.append(made.artifact.location)
            revision = made.revision("shop", f"{number}" * 40)
            target.launch(revision, made)
            until(lambda revision=revision: target.ready(revision).ready == 1)  # type: ignore[misc]
            target.route("shop", Traffic.all_to(revision))
            for other in released[-1:]:
                target.retire(other)
            released.append(revision)
        ours = {one["Image"] for one in engine.client.api.containers(all=True) if "somebody" not in one["Names"][0]}
        assert len(ours) == 3
        left = {image.id for image in engine.client.images.list()}
        assert [image in left for image in images] == [False, False, True, True, True]
        assert spec.artifact.location in left
        foreign.reload()
        # The rollback starts the kept containers and creates none.
        before = {one["Id"] for one in engine.client.api.containers(all=True)}
        kept = made.artifact.model_copy(update={"location": images[3], "digest": images[3]})
        target.launch(released[3], made.model_copy(update={"artifact": kept}))
        assert {one["Id"] for one in engine.client.api.containers(all=True)} == before
    finally:
        foreign.remove(force=True)


def test_most_recently_stopped_image_is_kept_whatever_its_age(
    target: DockerTarget, spec: LaunchSpec, engine: Engine
) -> None:
    target.keep = 1
    good, bad = start(target, spec, "old", 1), start(target, spec, "bad", 1)
    target.route("shop", Traffic.all_to(bad))
    target.retire(good)
    good = start(target, spec, "old", 1)  # the rollback: the container that was created first
    target.route("shop", Traffic.all_to(good))
    target.retire(bad)
    new = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    target.retire(good)
    left = {one.labels["headway.revision"] for one in engine.client.containers.list(all=True)}
    assert left == {good.id, new.id}


def test_revision_that_never_had_all_traffic_is_removed_first(
    target: DockerTarget, spec: LaunchSpec, engine: Engine
) -> None:
    target.keep = 1
    good = start(target, spec, "old", 1)
    target.route("shop", Traffic.all_to(good))
    newer = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(newer))
    target.retire(good)
    bad = start(target, spec, "bad", 1)
    target.route("shop", Traffic(weights={newer.id: 90, bad.id: 10}))
    target.route("shop", Traffic.all_to(newer))
    target.retire(bad)
    left = {one.labels["headway.revision"] for one in engine.client.containers.list(all=True)}
    assert left == {good.id, newer.id}


def test_address_taken_meanwhile_is_an_error_at_once(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    kept, serving = start(target, spec, instances=1), start(target, spec, "new", 1)
    ((address, _, _),) = [one.address.partition(":") for one in target.observe("shop").instances[kept.id]]
    target.route("shop", Traffic.all_to(serving))
    target.retire(kept)
    api = engine.client.api
    network = api.create_networking_config({target._label: api.create_endpoint_config(ipv4_address=address)})
    squatter = api.create_container(
        spec.artifact.location,
        ["/bin/sleep", "100"],
        host_config=api.create_host_config(network_mode=target._label),
        networking_config=network,
    )
    api.start(squatter)
    try:
        assert start(target, spec, instances=1) == kept
        (instance,) = target.observe("shop").instances[kept.id]
        assert not instance.address.startswith(f"{address}:")
    finally:
        api.remove_container(squatter, force=True)


def test_container_that_cannot_bind_gets_another_address(
    target: DockerTarget, spec: LaunchSpec, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address was free when it was looked for, and is not when the container starts."""
    serving = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(serving))
    (instance,) = target.observe("shop").instances[serving.id]
    taken = instance.address.partition(":")[0]
    with monkeypatch.context() as blind:
        blind.setattr(DockerTarget, "_free_address", lambda *_: (taken, 8080))
        with pytest.raises(TargetError, match="in use"):
            start(target, spec, instances=1)
    revision = spec.revision("shop", SHA["old"])
    assert target.ready(revision).failed
    assert start(target, spec, instances=1) == revision


def test_block_settings_apply_to_restarted_containers(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    kept, serving = start(target, spec, instances=1), start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(serving))
    target.retire(kept)
    target.read_only, target.cap_add = False, ["CHOWN"]
    start(target, spec, instances=1)
    (container,) = [one for one in engine.client.containers.list() if one.labels["headway.revision"] == kept.id]
    assert not container.attrs["HostConfig"]["ReadonlyRootfs"]
    assert container.attrs["HostConfig"]["CapAdd"] in (["CHOWN"], ["CAP_CHOWN"])


def test_image_is_removed_with_its_build_tags(
    target: DockerTarget, spec: LaunchSpec, engine: Engine, tmp_path: Path
) -> None:
    target.keep = 0
    built = engine.image({"app.py": GOOD + APP + "# tagged\n"}, name="somebody-s")
    with serving(tmp_path / "registry") as host:
        repository = f"{host}/acme/shop"
        registry = Registry(host=host, plain_http=True)
        digest = registry.push(engine.client, built.location, repository, ["main", "1" * 40], lambda _: None)
        pushed = built.model_copy(update={"digest": digest, "location": f"{repository}@{digest}"})
        old = start(target, spec.model_copy(update={"artifact": pushed}), instances=1)
        new = start(target, spec, "new", 1)
        target.route("shop", Traffic.all_to(new))
        target.retire(old)
    image = engine.client.images.get(built.location)
    assert image.tags == ["headway-test/somebody-s:latest"]
    assert image.attrs["RepoDigests"] == []


def test_changed_secret_is_in_restarted_containers(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    first = spec.model_copy(update={"instances": 1, "env": {"TOKEN": "old"}})
    old, new = start(target, first, instances=1), start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    target.launch(old, first.model_copy(update={"env": {"TOKEN": "new"}}))
    until(lambda: target.ready(old).ready == 1)
    told = [one.attrs["Config"]["Env"] for one in engine.client.containers.list() if old.id in one.name]
    assert ["TOKEN=new" in one for one in told] == [True]


def test_failed_removal_is_retried_next_time(
    target: DockerTarget, spec: LaunchSpec, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.keep = 0
    old, new = start(target, spec, instances=1), start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))

    def busy(*_: object, **__: object) -> None:
        raise docker_errors.APIError("device or resource busy")

    def left() -> set[str]:
        return {one.labels["headway.revision"] for one in engine.client.containers.list(all=True)}

    with monkeypatch.context() as refusing:
        refusing.setattr(APIClient, "remove_container", busy)
        target.retire(old)
    assert left() == {old.id, new.id}
    target.route("shop", Traffic.all_to(start(target, spec, instances=1)))
    target.retire(new)
    assert left() == {old.id}


def test_running_container_is_not_replaced(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    first = spec.model_copy(update={"instances": 1, "env": {"TOKEN": "old"}})
    revision = start(target, first, instances=1)
    before = [one.id for one in engine.client.containers.list()]
    target.launch(revision, first.model_copy(update={"env": {"TOKEN": "new"}}))
    assert [one.id for one in engine.client.containers.list()] == before


def test_secrets_are_masked_in_container_output(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    fails = "HEALTHCHECK --interval=1s --retries=1 CMD echo no $DATABASE; exit 1\n"
    loud = "def answer(path):\n    print('asked with', os.environ['DATABASE'], flush=True)\n    return 200, {}\n"
    image = app(engine, "import os\n" + loud, fails + 'CMD ["python3", "app.py"]')
    secret = {"env": {"DATABASE": "postgres://shop:hunter2@db"}, "secrets": ("DATABASE",), "instances": 1}
    talkative = spec.model_copy(update={**image, **secret})
    revision = talkative.revision("shop", SHA["new"])
    target.launch(revision, talkative)
    until(lambda: "HEALTHCHECK fails" in target.ready(revision).detail)
    detail = target.ready(revision).detail
    assert "its HEALTHCHECK fails: no ********" in detail
    assert "hunter2" not in detail
    said = [*target.logs("shop"), next(target.logs("shop", lines=0, follow=True))]
    assert {line.text for line in said} == {"listening on 8080", "asked with ********"}


def test_logs_are_followed(target: DockerTarget, spec: LaunchSpec, engine: Engine) -> None:
    loud = "def answer(path):\n    print('asked for', path, flush=True)\n    return 200, {}\n"
    revision = start(target, spec.model_copy(update=app(engine, loud)), instances=1)
    target.route("shop", Traffic.all_to(revision))
    heard: list[LogLine] = []
    following = target.logs("shop", lines=0, follow=True)
    thread = threading.Thread(target=lambda: heard.extend(line for line in _some(following, "/buy")), daemon=True)
    thread.start()
    until(lambda: (httpx.get(f"{url(target)}/buy", trust_env=False).status_code, not thread.is_alive())[1])
    assert heard[-1].text == "asked for /buy"
    assert revision.id in heard[-1].instance
    assert heard[-1].at is not None


def _some(lines: Iterator[LogLine], end: str) -> Iterator[LogLine]:
    for line in lines:
        yield line
        if end in line.text:
            return


def test_remote_engine_publishes_ports(
    spec: LaunchSpec, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls(engine, tmp_path) as port:
        for bundle in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # docker's client would take it for the engine's
            monkeypatch.delenv(bundle, raising=False)
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        namespace = f"headway-test-{secrets.token_hex(3)}"
        target = DockerTarget(directory=tmp_path / "t", url=f"tcp://127.0.0.1:{port}", namespace=namespace)
        try:
            old, new = start(target, spec), start(target, spec, "new", 1)
            for wanted in (old, new, old):
                target.route("shop", Traffic.all_to(wanted))
                assert httpx.get(url(target), trust_env=False).json()["version"] == wanted.sha
            (address, *_) = [one.address for one in target.observe("shop").instances[old.id]]
            assert address.startswith("127.0.0.1:")
            with monkeypatch.context() as without:
                without.delenv("DOCKER_TLS_VERIFY")
                without.delenv("DOCKER_CERT_PATH")
                with pytest.raises(TargetError, match="does not answer"):
                    target.observe("shop")
        finally:
            target.destroy()


def test_ssh_host_alias_of_the_engine_is_resolved(
    spec: LaunchSpec, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ssh(engine, tmp_path) as programs:
        monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
        namespace = f"headway-test-{secrets.token_hex(3)}"
        target = DockerTarget(directory=tmp_path / "t", url="ssh://engine", namespace=namespace)
        try:
            revision = start(target, spec, instances=1)
            target.route("shop", Traffic.all_to(revision))
            assert httpx.get(url(target), trust_env=False).json()["version"] == revision.sha
            target.retire(start(target, spec, "new", 1))
        finally:
            target.destroy()


@contextmanager
def ssh(engine: Engine, place: Path) -> Iterator[Path]:
    """A directory with an `ssh` that knows the engine's machine as `engine`: an sshd of the test's own."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None:
        pytest.skip("no sshd on this machine: apt-get install openssh-server")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True, timeout=60)
    forced = f'command="DOCKER_HOST={engine.url} docker system dial-stdio"'
    (place / "authorized").write_text(f"{forced} {(place / 'user.pub').read_text()}")
    port = free_port()
    options = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": place / "host", "StrictModes": "no"}
    options |= {"AuthorizedKeysFile": place / "authorized", "PidFile": "none", "UsePAM": "no", "PermitRootLogin": "yes"}
    (place / "sshd").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    known = {"HostName": "127.0.0.1", "Port": port, "IdentityFile": place / "user", "StrictHostKeyChecking": "no"}
    known |= {"UserKnownHostsFile": place / "known", "LogLevel": "ERROR"}
    (place / "config").write_text("Host engine\n" + "".join(f"  {key} {value}\n" for key, value in known.items()))
    programs = place / "programs"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place / "config"} "$@"\n')
    (programs / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # where it puts the part of itself that has no rights
    server = subprocess.Popen([sshd, "-D", "-e", "-f", place / "sshd"], stderr=(place / "sshd.log").open("wb"))
    try:
        until(lambda: _answers(port))
        yield programs
    finally:
        server.terminate()
        server.wait(60)


def _answers(port: int) -> bool:
    with socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def tls(engine: Engine, place: Path) -> Iterator[int]:
    """Port on which the engine is to be had by who has the certificate in this directory."""
    subject = ["-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files], check=True, timeout=60
    )
    (place / "ca.pem").write_text((place / "cert.pem").read_text())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(place / "ca.pem"))
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    over = threading.Event()
    with create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    connection, _ = listening.accept()
                    connection.settimeout(None)
                    threading.Thread(target=relay, args=(connection,), daemon=True).start()

        def relay(connection: socket) -> None:
            try:
                near = context.wrap_socket(connection, server_side=True)
            except OSError:
                return
            far = socket(AF_UNIX)
            far.connect(engine.url.removeprefix("unix://"))
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)

        listening.settimeout(0.1)
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()


def copy(one: socket, other: socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(SHUT_WR)
