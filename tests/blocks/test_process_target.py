"""What only the process target promises: no dropped request, and that it survives what kills its parts."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from blocks.targets.process import ProcessTarget
from headway.errors import LockLost, TargetError
from headway.load import Load
from headway.model import LaunchSpec, Traffic
from tests.contracts.test_target import SHA, process, spec, until, up
from tests.e2e.conftest import APP

__all__ = ["spec"]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ProcessTarget]:
    with process(tmp_path / "target") as made:
        assert isinstance(made, ProcessTarget)
        yield made


def url(target: ProcessTarget) -> str:
    found = target.observe("shop").url
    assert found is not None
    return found


def test_switching_back_and_forth_under_load_drops_nothing(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new")
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=200) as load:
        for _ in range(10):
            target.route("shop", Traffic.all_to(new))
            target.route("shop", Traffic.all_to(old))
    assert load.failures == []
    assert set(load.seen) == {old.id, new.id}


def test_replacing_every_instance_under_load_drops_nothing(target: ProcessTarget, spec: LaunchSpec) -> None:
    old = up(target, spec)
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=200) as load:
        for _ in range(3):
            new = up(target, spec, "new", 1)
            target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
            target.retire(old, keep=1)
            new = up(target, spec, "new", 2)
            target.route("shop", Traffic.all_to(new))
            target.retire(old)
            up(target, spec)
            target.route("shop", Traffic.all_to(old))
            target.retire(new)
    assert load.sent > 100
    assert load.failures == []


def test_weights_are_what_users_see(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new", 1)
    target.route("shop", Traffic(weights={old.id: 80, new.id: 20}))
    with httpx.Client(base_url=url(target), trust_env=False) as client:
        seen = [client.get("/").headers["x-headway-revision"] for _ in range(1000)]
        assert 140 < seen.count(new.id) < 260  # 20 % of 1000, and 4.7 standard deviations each way
        named = [client.get("/", headers={"x-headway-revision": new.id}).json()["version"] for _ in range(20)]
    assert set(named) == {SHA["new"]}


def test_a_wrong_version_is_not_ready(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "app.py").write_text("def answer(path):\n    return 200, {'version': 'other'}\n" + APP)
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, spec)
    until(lambda: "answers version other" in target.ready(revision).detail)
    assert target.ready(revision).ready == 0


def test_an_app_that_keeps_dying_has_failed_with_its_last_words(target: ProcessTarget, spec: LaunchSpec) -> None:
    broken = spec.model_copy(update={"run": "echo no such table: users; exit 3"})
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, broken)
    until(lambda: target.ready(revision).failed, 30)
    assert "no such table: users" in target.ready(revision).detail


def test_a_compound_command_is_stopped_with_all_its_processes(target: ProcessTarget, spec: LaunchSpec) -> None:
    nested = spec.model_copy(update={"run": "cd . && (python3 app.py; echo ended)"})
    old = up(target, nested)
    new = up(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert _instances(target, old.id) == set()


def test_errors_are_counted(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "app.py").write_text(
        "def answer(path):\n    return (500 if path == '/bad' else 200), {}\n" + APP
    )
    revision = up(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = target.measure("shop")
    with httpx.Client(base_url=url(target), trust_env=False) as client:
        assert [client.get(path).status_code for path in ["/bad"] * 7 + ["/"] * 20].count(500) == 7
    counted = target.measure("shop").since(before, revision)
    assert (counted.errors, counted.requests) == (7, 27)


def test_envoy_killed_comes_back_with_the_same_routes(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = up(target, spec), up(target, spec, "new", 1)
    split = Traffic(weights={old.id: 90, new.id: 10})
    target.route("shop", split)
    envoys = [one for one in psutil.process_iter() if "envoy" in one.name() and _mark(one) == str(target.directory)]
    assert len(envoys) == 1
    envoys[0].kill()
    until(lambda: envoys[0].pid not in psutil.pids() or not envoys[0].is_running())
    until(lambda: _serves(target))
    assert target.observe("shop").traffic == split


def test_supervisord_killed_interrupts_nobody(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    (tmp_path / "bundle" / "app.py").write_text(
        "def answer(path):\n    print(path, flush=True)\n    return 200, {}\n" + APP
    )
    old = up(target, spec)
    target.route("shop", Traffic.all_to(old))
    running, address = _instances(target, old.id), url(target)
    assert target.directory is not None
    with Load(address, rate=100) as load:
        os.kill(int((target.directory / "supervisord.pid").read_text()), signal.SIGKILL)
        time.sleep(0.3)
        assert httpx.get(f"{address}/said-meanwhile", trust_env=False).status_code == 200
        assert target.revive("shop")
        assert not target.revive("shop")
        assert target.observe("shop").live == old.id
        target.launch(old, spec)
        until(lambda: target.ready(old).ready == 2)
    assert load.failures == []
    assert _instances(target, old.id) == running
    assert any("/said-meanwhile" in line for line in target.logs("shop"))
    new = up(target, spec, "new")
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert _instances(target, old.id) == set()


def test_what_was_stood_in_for_is_killed_when_it_takes_too_long(target: ProcessTarget, spec: LaunchSpec) -> None:
    deaf = spec.model_copy(update={"run": "trap '' TERM; python3 app.py & wait; wait; sleep 60", "stop_grace": 1})
    old = up(target, deaf)
    assert target.directory is not None
    os.kill(int((target.directory / "supervisord.pid").read_text()), signal.SIGKILL)
    target.retire(old)
    until(lambda: _instances(target, old.id) == set())


def test_secrets_are_masked_in_the_log(target: ProcessTarget, spec: LaunchSpec) -> None:
    secret = {"TOKEN": "s3cr3t-value", "PLAIN": "well-known"}
    told = spec.model_copy(update={"env": secret, "secrets": ("TOKEN",), "run": "echo $PLAIN $TOKEN; exit 3"})
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, told)
    until(lambda: target.ready(revision).failed, 30)
    assert "well-known ********" in target.ready(revision).detail
    assert not any("s3cr3t" in line for line in target.logs("shop"))


def test_a_taken_port_is_somebody_else_s(target: ProcessTarget, spec: LaunchSpec) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            TargetError, match=rf"environments/staging/port: {port} .* taken by .*\(pid {os.getpid()}\)"
        ):
            target.launch(spec.revision("shop", SHA["old"]), spec.model_copy(update={"port": port}))


def test_apps_of_two_targets_never_share_a_port(tmp_path: Path, spec: LaunchSpec) -> None:
    with process(tmp_path / "one") as one, process(tmp_path / "two") as two, ThreadPoolExecutor() as pool:
        launched = [pool.submit(each.launch, spec.revision("shop", SHA["old"]), spec) for each in (one, two)]
        for each in launched:
            each.result()
        assert one.observe("shop").url != two.observe("shop").url


def test_another_process_s_older_token_is_refused(target: ProcessTarget, spec: LaunchSpec) -> None:
    target.claim("shop", 7)
    other = ProcessTarget(directory=target.directory)
    with pytest.raises(LockLost):
        other.launch(spec.revision("shop", SHA["old"]), spec)


def _serves(target: ProcessTarget) -> bool:
    try:
        return httpx.get(url(target), trust_env=False).status_code == 200
    except (httpx.HTTPError, TargetError):
        return False


def _mark(one: psutil.Process) -> str | None:
    try:
        return one.environ().get("HEADWAY_SUPERVISED_BY")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _instances(target: ProcessTarget, revision: str) -> set[int]:
    """The app's processes; other tests run the same revision elsewhere."""
    return {
        one.pid for one in psutil.process_iter() if _mark(one) == str(target.directory) and _revision(one) == revision
    }


def _revision(one: psutil.Process) -> str | None:
    try:
        return one.environ().get("HEADWAY_REVISION")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
