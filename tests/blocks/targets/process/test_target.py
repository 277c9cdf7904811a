"""Behaviour of the process target only: no dropped request, recovery from killed processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from blocks.envoy import xds
from blocks.targets._instance_checks import public_refusal
from blocks.targets._ports import RESERVATIONS
from blocks.targets.process.target import ProcessTarget
from headway.domain.errors import LockLost, TargetError
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec
from headway.domain.traffic import HeaderRule, Traffic
from headway.rollout.load_generator import Load
from headway.system import machine_limits, sealed_tree
from headway.testing.contracts import SHA, launch_spec, sample_bundle, start, until
from tests.contracts import targets
from tests.e2e.conftest import APP
from tests.standins.ports import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def spec(tmp_path: Path) -> LaunchSpec:
    return targets.bundle_spec(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[ProcessTarget]:
    with targets.process(tmp_path / "target") as made:
        yield made


def url(target: ProcessTarget) -> str:
    found = target.observe("shop").url
    assert found is not None
    return found


def test_switching_back_and_forth_under_load_drops_nothing(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new")
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=200) as load:
        for _ in range(10):
            target.route("shop", Traffic.all_to(new))
            target.route("shop", Traffic.all_to(old))
    assert load.failures == []
    assert set(load.seen) == {old.id, new.id}


def test_replacing_every_instance_under_load_drops_nothing(target: ProcessTarget, spec: LaunchSpec) -> None:
    old = start(target, spec)
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=200) as load:
        for _ in range(3):
            new = start(target, spec, "new", 1)
            target.route("shop", Traffic(weights={old.id: 50, new.id: 50}))
            target.retire(old, keep=1)
            new = start(target, spec, "new", 2)
            target.route("shop", Traffic.all_to(new))
            target.retire(old)
            start(target, spec)
            target.route("shop", Traffic.all_to(old))
            target.retire(new)
    assert load.sent > 100
    assert load.failures == []


def test_observed_shares_match_the_weights(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    target.route("shop", Traffic(weights={old.id: 80, new.id: 20}))
    with httpx.Client(base_url=url(target), trust_env=False) as client:
        seen = [client.get("/").headers["x-headway-revision"] for _ in range(1000)]
        assert 140 < seen.count(new.id) < 260  # 20 % of 1000, and 4.7 standard deviations each way
        named = [client.get("/", headers={"x-headway-revision": new.id}).json()["version"] for _ in range(20)]
    assert set(named) == {SHA["new"]}


def test_a_header_or_a_cookie_chooses_the_version(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    rules = (HeaderRule(name="x-beta", value="yes", revision=new.id),)
    wanted = Traffic(weights={old.id: 100, new.id: 0}, headers=rules)
    target.route("shop", wanted)
    assert target.observe("shop").traffic.headers == rules
    with httpx.Client(base_url=url(target), trust_env=False) as client:

        def seen(**headers: str) -> str:
            return client.get("/", headers=headers).headers["x-headway-revision"]

        assert {seen() for _ in range(20)} == {old.id}
        assert {seen(**{"x-beta": "yes"}) for _ in range(20)} == {new.id}
        assert seen(**{"x-beta": "no"}) == old.id
        assert seen(cookie=f"a=b; x-headway-revision={new.id}; c=d") == new.id
        assert seen(cookie=f"x-headway-revision={new.id}0") == old.id
        assert seen(cookie="x-headway-revision=gone") == old.id


def test_sticky_users_stay_when_the_weight_rises(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    address = url(target)

    def visit(session: str) -> str:
        headers = {"cookie": f"headway-session={session}"}
        return httpx.get(address, headers=headers, trust_env=False).headers["x-headway-revision"]

    def share(weight: int) -> None:
        target.route("shop", Traffic(weights={new.id: weight, old.id: 100 - weight}, sticky=True))
        assert target.observe("shop").traffic == Traffic(weights={new.id: weight, old.id: 100 - weight}, sticky=True)

    share(20)
    users = {}
    for _ in range(200):
        answer = httpx.get(address, trust_env=False)
        users[answer.cookies["headway-session"]] = answer.headers["x-headway-revision"]
    canaries = {user for user, revision in users.items() if revision == new.id}
    assert 15 < len(canaries) < 70  # 20 % of 200, and more than 4 standard deviations each way
    assert {user: visit(user) for user in users} == users
    share(60)
    later = {user: visit(user) for user in users}
    assert all(later[user] == new.id for user in canaries)
    assert 80 < sum(revision == new.id for revision in later.values()) < 160
    share(20)
    assert {user: visit(user) for user in users} == users


def test_preview_has_its_own_port_and_header(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    target.route("shop", Traffic(weights={old.id: 100}, preview=new.id))
    seen = target.observe("shop")
    assert seen.traffic.preview == new.id
    assert seen.preview_url is not None
    assert seen.preview_url != seen.url
    assert httpx.get(seen.preview_url, trust_env=False).json()["version"] == SHA["new"]
    asked = httpx.get(url(target), headers={"x-headway-preview": "true"}, trust_env=False)
    assert asked.json()["version"] == SHA["new"]
    assert httpx.get(url(target), trust_env=False).json()["version"] == SHA["old"]
    target.route("shop", Traffic.all_to(new))
    assert target.observe("shop").preview_url is None
    assert httpx.get(seen.preview_url, trust_env=False).status_code == 503


def test_preview_port_is_configurable(target: ProcessTarget, spec: LaunchSpec) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        named = spec.model_copy(update={"preview_port": port})
        with pytest.raises(TargetError, match=f"environments/staging/preview_port: {port} on 127.0.0.1 is taken"):
            target.launch(spec.revision("shop", SHA["new"]), named)
    new = start(target, named, "new", 1)
    target.route("shop", Traffic(preview=new.id))
    assert target.observe("shop").preview_url == f"http://127.0.0.1:{port}"
    assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False).json()["version"] == SHA["new"]


def test_latency_is_measured_at_the_proxy(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    slow = "import time\ndef answer(path):\n    time.sleep(2 if path == '/slow' else 0)\n    return 200, {}\n"
    spec = targets.with_files(spec, app=slow + APP)
    revision = start(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = target.measure("shop")
    with httpx.Client(base_url=url(target), trust_env=False) as client:
        for path in ["/"] * 9 + ["/slow"]:
            client.get(path)

    def measured() -> bool:
        since = target.measure("shop").since(before, revision)
        return sum(bucket.requests for bucket in since.latency) == 10

    until(measured)  # Envoy merges its threads' histograms every second
    now = target.measure("shop")
    since = now.since(before, revision)
    median, longest = since.quantile(0.5), since.quantile(1.0)
    assert median is not None
    assert longest is not None
    assert median < 1.0 < 1.9 < longest
    assert since.slower(1.5) == 1
    assert now.edge is not None
    assert before.edge is not None
    assert now.edge.since(before.edge).requests == 10


def test_a_wrong_version_is_not_ready(target: ProcessTarget, spec: LaunchSpec) -> None:
    spec = targets.with_files(spec, app="def answer(path):\n    return 200, {'version': 'b0b0b0b'}\n" + APP)
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, spec)
    until(lambda: "answers version b0b0b0b" in target.ready(revision).detail)
    assert target.ready(revision).ready == 0


def test_crash_loop_fails_with_the_last_log_lines(target: ProcessTarget, spec: LaunchSpec) -> None:
    broken = spec.model_copy(update={"run": "echo no such table: users; exit 3"})
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, broken)
    until(lambda: target.ready(revision).failed)
    assert "no such table: users" in target.ready(revision).detail


def test_late_crash_or_missing_listener_quotes_the_log(target: ProcessTarget, spec: LaunchSpec) -> None:
    broken = spec.model_copy(update={"run": "echo wrong hash: sha257; sleep 60; exit 3"})
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, broken)
    until(lambda: "wrong hash: sha257" in target.ready(revision).detail)
    assert not target.ready(revision).failed


def test_a_compound_command_is_stopped_with_all_its_processes(target: ProcessTarget, spec: LaunchSpec) -> None:
    nested = spec.model_copy(update={"run": "cd . && (python3 app.py; echo ended)"})
    old = start(target, nested)
    new = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert _instances(target, old.id) == set()


def test_retired_revision_leaves_no_process(target: ProcessTarget, spec: LaunchSpec) -> None:
    """Neither what has a session of its own, nor what ignores SIGTERM."""
    stub = spec.model_copy(
        update={"run": "trap '' TERM; setsid sleep 98765 & python3 app.py & wait; wait; sleep 60", "stop_grace": 1}
    )
    old = start(target, stub)
    new = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    assert target.directory is not None
    helpers = [one for one in targets.processes_of(target.directory) if "98765" in one.cmdline()]
    assert len(helpers) == 2
    target.retire(old)
    assert [one for one in helpers if one.is_running()] == []


def test_a_live_version_is_started_again_for_as_long_as_it_is_live(
    target: ProcessTarget, spec: LaunchSpec, tmp_path: Path
) -> None:
    """Its database was away for longer than any number of tries: then it comes back, and it serves."""
    needed = tmp_path / "needed"
    needed.touch()
    needing = spec.model_copy(update={"run": f"cat {needed} && exec python3 app.py", "instances": 1})
    live = start(target, needing, instances=1)
    target.route("shop", Traffic.all_to(live))
    (name,) = target._read("shop").names()
    needed.unlink()
    for pid in _instances(target, live.id):
        os.kill(pid, signal.SIGKILL)
    until(lambda: len([line for line in target.logs("shop", live.id) if "No such file" in line.text]) >= 4)
    assert httpx.get(url(target), trust_env=False).status_code == 503
    assert target._supervisor.given_up(name) is None
    needed.touch()
    until(lambda: _serves(target))


STRANGER = """
import http.server, sys

class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"stranger")

http.server.HTTPServer(("0.0.0.0", int(sys.argv[1])), Stranger).serve_forever()
"""


def test_another_program_that_takes_the_port_of_a_dead_instance_gets_no_requests(
    target: ProcessTarget, spec: LaunchSpec, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"
    needed.touch()
    live = start(target, spec.model_copy(update={"run": f"cat {needed} && exec python3 app.py"}), instances=1)
    target.route("shop", Traffic.all_to(live))
    address = url(target)
    (instance,) = target._read("shop").of(live.id).values()
    needed.unlink()
    for pid in _instances(target, live.id):
        os.kill(pid, signal.SIGKILL)
    stranger = f"http://127.0.0.1:{instance.port}"
    with subprocess.Popen([sys.executable, "-c", STRANGER, str(instance.port)], stderr=subprocess.DEVNULL) as taking:
        until(lambda: _text(stranger) == "stranger")
        # Envoy looks once a second; until then it does not know that the instance is dead.
        until(lambda: httpx.get(address, trust_env=False).status_code == 503)
        for _ in range(50):
            assert _text(address) != "stranger"
            time.sleep(0.1)
        assert httpx.get(address, trust_env=False).status_code == 503
        assert not target.observe("shop").ready(live)
        taking.kill()
    needed.touch()
    until(lambda: _serves(target))


def test_a_live_version_that_an_earlier_release_has_given_up_is_started_again(
    target: ProcessTarget, spec: LaunchSpec, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"
    needed.touch()
    needing = spec.model_copy(update={"run": f"cat {needed} && exec python3 app.py", "instances": 1})
    live = start(target, needing, instances=1)
    target.route("shop", Traffic.all_to(live))
    (name,) = target._read("shop").names()
    (kept,) = target._supervisor.home.glob(f"programs/{name}*.keep")
    kept.unlink()
    needed.unlink()
    for pid in _instances(target, live.id):
        os.kill(pid, signal.SIGKILL)
    until(lambda: target._supervisor.given_up(name) is not None)
    needed.touch()
    target.revive("shop")
    until(lambda: _serves(target))


def test_an_app_that_edits_its_bundle_is_not_started_again(target: ProcessTarget, tmp_path: Path) -> None:
    artifact = sample_bundle(tmp_path / "store" / "sha256" / "bundle")
    place = Path(artifact.location)
    built = (place / "app.py").read_text()
    sealed_tree.manifest_file(place).parent.mkdir()
    sealed_tree.manifest_file(place).write_bytes(sealed_tree.manifest_of(place))
    editing = "chmod u+w app.py && echo '# more' >> app.py && chmod u-w app.py && exec python3 app.py"
    spec = launch_spec(artifact, run=editing)
    live = start(target, spec, instances=1)
    target.route("shop", Traffic.all_to(live))
    assert _serves(target)
    with pytest.raises(TargetError, match="has other content; nothing was launched"):
        target.launch(live, spec.model_copy(update={"instances": 2}))
    with pytest.raises(TargetError, match="has other content; nothing was launched"):
        target.launch(spec.revision("shop", SHA["old"]), spec)
    for pid in _instances(target, live.id):
        os.kill(pid, signal.SIGKILL)
    refused = "headway: not started: the bundle was changed after its build: app.py: has other content"
    until(lambda: refused in {line.text for line in target.logs("shop")})
    assert not _serves(target)
    (place / "app.py").chmod(0o644)
    (place / "app.py").write_text(built)
    (place / "app.py").chmod(0o444)
    until(lambda: _serves(target))  # it is live: its launcher has gone on trying


def test_errors_are_counted(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    source = "def answer(path):\n    return (500 if path == '/bad' else 200), {}\n" + APP
    spec = targets.with_files(spec, app=source)
    revision = start(target, spec)
    target.route("shop", Traffic.all_to(revision))
    before = target.measure("shop")
    with httpx.Client(base_url=url(target), trust_env=False) as client:
        assert [client.get(path).status_code for path in ["/bad"] * 7 + ["/"] * 20].count(500) == 7
    counted = target.measure("shop").since(before, revision)
    assert (counted.errors, counted.requests) == (7, 27)


def test_killed_envoy_restarts_with_the_same_routes(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    split = Traffic(weights={old.id: 90, new.id: 10})
    target.route("shop", split)
    (envoy,) = _programs(target, "envoy")
    envoy.kill()
    until(lambda: not envoy.is_running() or envoy.status() == psutil.STATUS_ZOMBIE)
    until(lambda: _serves(target))
    assert target.observe("shop").traffic == split


def test_envoy_needs_no_inotify_instance(target: ProcessTarget, spec: LaunchSpec) -> None:
    """Linux allows a user 128: with five for each app, 25 apps would be the most."""
    old, new = start(target, spec), start(target, spec, "new", 1)
    target.route("shop", Traffic(weights={old.id: 90, new.id: 10}))
    (envoy,) = _programs(target, "envoy")
    files = [str(file.readlink()) for file in Path(f"/proc/{envoy.pid}/fd").iterdir()]
    assert len(files) > 10
    assert [file for file in files if "inotify" in file] == []


def test_the_configuration_server_killed_interrupts_nobody(target: ProcessTarget, spec: LaunchSpec) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(old))
    with Load(url(target), rate=100) as load:
        (server,) = _programs(target, "blocks.envoy.xds_server")
        server.kill()
        target.route("shop", Traffic.all_to(new))
        until(lambda: {one.pid for one in _programs(target, "blocks.envoy.xds_server")} - {server.pid} != set())
        target.route("shop", Traffic.all_to(old))
    assert load.failures == []


def test_envoy_and_its_configuration_server_killed_come_back_with_the_same_routes(
    target: ProcessTarget, spec: LaunchSpec
) -> None:
    old, new = start(target, spec), start(target, spec, "new", 1)
    split = Traffic(weights={old.id: 90, new.id: 10})
    target.route("shop", split)
    for one in (*_programs(target, "blocks.envoy.xds_server"), *_programs(target, "envoy")):
        one.kill()
    until(lambda: _serves(target))
    assert target.observe("shop").traffic == split


def test_an_envoy_of_an_earlier_release_reads_its_files(
    target: ProcessTarget, spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started with them. When it would need an inotify instance that is not there, nothing changes."""
    old = start(target, spec)
    target.route("shop", Traffic.all_to(old))
    directory = target._directory("shop") / "envoy"
    bootstrap = json.loads((directory / "bootstrap.json").read_text())
    sources = {f"{kind}_config": xds._source(directory / f"{kind}.json") for kind in ("lds", "cds")}
    bootstrap |= {"static_resources": {}, "dynamic_resources": sources}
    (directory / "bootstrap.json").write_text(json.dumps(bootstrap))
    assert not target._proxies.edge("shop").reads_files
    (envoy,) = _programs(target, "envoy")
    envoy.kill()
    until(lambda: target._proxies.edge("shop").reads_files)
    until(lambda: _serves(target))
    new = start(target, spec, "new", 1)
    target.route("shop", Traffic.all_to(new))
    assert httpx.get(url(target), trust_env=False).headers["x-headway-revision"] == new.id
    monkeypatch.setattr(machine_limits, "inotify_shortage", lambda: Refusal("no inotify instance left", "raise it"))
    before = target._read("shop")
    with pytest.raises(TargetError, match="no inotify instance left; nothing was changed"):
        target.launch(spec.revision("shop", SHA["bad"]), spec)
    assert target._read("shop") == before
    assert _serves(target)
    target.launch(new, spec)  # a rollback is tried
    (envoy,) = _programs(target, "envoy")
    envoy.kill()
    until(lambda: _serves(target) and not target._proxies.edge("shop").reads_files)


def test_killed_supervisord_interrupts_no_request(target: ProcessTarget, spec: LaunchSpec, tmp_path: Path) -> None:
    source = "def answer(path):\n    print(path, flush=True)\n    return 200, {}\n" + APP
    spec = targets.with_files(spec, app=source)
    old = start(target, spec)
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
    assert any("/said-meanwhile" in line.text for line in target.logs("shop"))
    new = start(target, spec, "new")
    target.route("shop", Traffic.all_to(new))
    target.retire(old)
    assert _instances(target, old.id) == set()


def test_program_of_a_killed_supervisord_is_killed_after_the_grace_time(
    target: ProcessTarget, spec: LaunchSpec
) -> None:
    deaf = spec.model_copy(update={"run": "trap '' TERM; python3 app.py & wait; wait; sleep 60", "stop_grace": 1})
    old = start(target, deaf)
    assert target.directory is not None
    os.kill(int((target.directory / "supervisord.pid").read_text()), signal.SIGKILL)
    target.retire(old)
    until(lambda: _instances(target, old.id) == set())


def test_followed_logs_show_any_bytes_and_instances_that_start_later(
    target: ProcessTarget, spec: LaunchSpec, tmp_path: Path
) -> None:
    source = (
        "import os, sys\n"
        "sys.stdout.buffer.write(b'caf\\xe9 \\xff' + os.environ['HEADWAY_VERSION'][:1].encode() + b'\\n')\n"
        "sys.stdout.flush()\n"
        "def answer(path):\n    return 200, {}\n" + APP
    )
    spec = targets.with_files(spec, app=source)
    start(target, spec, instances=1)
    seen: list[str] = []

    def follow() -> None:
        for line in target.logs("shop", follow=True):
            seen.append(line.text)
            if line.text == "caf\ufffd \ufffd2":
                return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    until(lambda: "caf\ufffd \ufffd1" in seen)
    start(target, spec, "new", 1)
    following.join(60)
    assert not following.is_alive()
    assert "caf\ufffd \ufffd2" in seen


def test_secrets_are_masked_in_the_log(target: ProcessTarget, spec: LaunchSpec) -> None:
    secret = {"TOKEN": "s3cr3t-value", "PLAIN": "well-known"}
    told = spec.model_copy(update={"env": secret, "secrets": ("TOKEN",), "run": "echo $PLAIN $TOKEN; exit 3"})
    revision = spec.revision("shop", SHA["old"])
    target.launch(revision, told)
    until(lambda: target.ready(revision).failed)
    assert "well-known ********" in target.ready(revision).detail
    assert not any("s3cr3t" in line.text for line in target.logs("shop"))


def test_taken_port_is_an_error(target: ProcessTarget, spec: LaunchSpec) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            TargetError, match=rf"environments/staging/port: {port} .* taken by .*\(pid {os.getpid()}\)"
        ):
            target.launch(spec.revision("shop", SHA["old"]), spec.model_copy(update={"port": port}))


def test_apps_of_two_targets_never_share_a_port(target: ProcessTarget, tmp_path: Path, spec: LaunchSpec) -> None:
    with targets.process(tmp_path / "two") as two, ThreadPoolExecutor() as pool:
        launched = [pool.submit(each.launch, spec.revision("shop", SHA["old"]), spec) for each in (target, two)]
        for each in launched:
            each.result()
        assert target.observe("shop").url != two.observe("shop").url


def test_older_token_of_another_process_is_refused(target: ProcessTarget, spec: LaunchSpec) -> None:
    target.claim("shop", 7)
    other = ProcessTarget(directory=target.directory)
    with pytest.raises(LockLost):
        other.launch(spec.revision("shop", SHA["old"]), spec)


def test_port_that_was_taken_when_envoy_began_is_tried_again(target: ProcessTarget, spec: LaunchSpec) -> None:
    live = start(target, spec, instances=1)
    target.route("shop", Traffic.all_to(live))
    address = url(target)
    assert target.unreachable("shop") is None
    port = int(address.rpartition(":")[2])
    target.destroy()
    with socket.create_server(("127.0.0.1", port)):
        target.revive("shop")
        until(lambda: "is taken by" in str(target.unreachable("shop")))
        assert not target.revive("shop")
    until(lambda: target.revive("shop"))
    until(lambda: target.unreachable("shop") is None)
    assert _serves(target)


def test_another_program_at_the_public_address_is_reported(target: ProcessTarget, spec: LaunchSpec) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", STRANGER, str(port)], stderr=subprocess.DEVNULL) as taking:
        until(lambda: _text(f"http://127.0.0.1:{port}") == "stranger")
        refusal = public_refusal(f"http://127.0.0.1:{port}", "/", ["r"])
        taking.kill()
    assert str(refusal) == f"http://127.0.0.1:{port} is answered by another program"


def _serves(target: ProcessTarget) -> bool:
    try:
        return httpx.get(url(target), trust_env=False).status_code == 200
    except (httpx.HTTPError, TargetError):
        return False


def _text(address: str) -> str:
    try:
        return httpx.get(address, trust_env=False).text
    except httpx.HTTPError:
        return ""


def _mark(one: psutil.Process) -> str | None:
    try:
        return one.environ().get("HEADWAY_SUPERVISED_BY")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _programs(target: ProcessTarget, program: str) -> list[psutil.Process]:
    """Processes of the target that run this program or Python module, without their launchers."""
    assert target.directory is not None
    return [one for one in targets.processes_of(target.directory) if _runs(one, program)]


def _runs(process: psutil.Process, program: str) -> bool:
    try:
        return process.name() == program or {program, "-m"} <= set(process.cmdline())
    except psutil.NoSuchProcess:
        return False


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


def test_port_of_a_forgotten_app_is_free_again(target: ProcessTarget, spec: LaunchSpec) -> None:
    revision = start(target, spec)
    port = httpx.URL(str(target.observe("shop").url)).port
    reservation = RESERVATIONS / str(port)
    assert reservation.read_text() == str(target._directory("shop"))
    target.route("shop", Traffic())
    target.retire(revision)
    target.forget("shop")
    assert not reservation.exists() or reservation.read_text() != str(target._directory("shop"))
    assert sorted(one.name for one in target._directory("shop").iterdir()) == ["lock", "state.json"]
