"""`headway up`: stopped during a rollout, restarted, on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Headway, Repo, Up
from tests.e2e.test_release import APPROVED, SLOW, start_and_wait_for_launch, version

pytestmark = pytest.mark.e2e


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    (tmp_path / "home").mkdir()
    service = Up(tmp_path / "home").with_database()
    with service.running():
        yield service


def is_back(headway: Headway, repo: Repo, run_id: str, good: str, state: str, seconds: float = 90.0) -> None:
    """The release ends in this state, and the version before it is live."""
    release = headway.until(lambda: (r := headway.ledger.releases.by_run(run_id)) and not r.open and r, seconds)
    assert release.state == state, release.summary
    headway.until(lambda: not headway.ledger.rollouts.unfinished(repo.app), seconds)
    assert {version(headway.url(repo.app, "staging")) for _ in range(10)} == {good}


def test_stop_during_a_rollout_rolls_back(own: Up, repo: Repo) -> None:
    headway = Headway(own)
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave(SLOW)
    run_id = start_and_wait_for_launch(headway, repo)
    assert own.stop() == 0
    assert "releases in progress are rolled back" in own.log.read_text()
    is_back(headway, repo, run_id, good, "cancelled")


def test_interrupt_during_the_start_leaves_nothing(tmp_path: Path, repo: Repo) -> None:
    (tmp_path / "home").mkdir()
    up = Up(tmp_path / "home").with_database()
    for words in ("starting; logs", "waiting for Prefect", "registering blocks", "starting the worker"):
        up.start(until=words)
        children = psutil.Process(up.process.pid).children(recursive=True)
        assert up.stop() == 0, up.log.read_text()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []
        assert not (up.home / "up.json").exists()
    with up.running():
        assert "\ncommands of apps are " in up.log.read_text()
        assert Headway(up).release(repo.path)["state"] == "succeeded"


def test_killed_services_are_started_again_and_close_their_releases(own: Up, repo: Repo) -> None:
    own.breaks_the_server = True
    headway = Headway(own)
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")

    repo.behave(SLOW)
    run_id = start_and_wait_for_launch(headway, repo)
    for service in [own.child(words) for words in ("http_server", "prefect.server", "worker start")]:
        service.kill()
    headway.until(lambda: own.log.read_text().count("has ended (SIGKILL) and is started again") == 3)
    release = headway.ledger.releases.by_run(run_id)
    assert release is not None
    headway.run("cancel", release.name, "--no-follow")  # waits for the server, which is starting
    is_back(headway, repo, run_id, good, "cancelled")

    repo.behave(SLOW, "another")
    run_id = start_and_wait_for_launch(headway, repo)
    children = psutil.Process(own.process.pid).children(recursive=True)
    own.process.kill()
    own.process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    own.start()
    is_back(headway, repo, run_id, good, "failed", 60.0)

    repo.behave("    return 200, {}", "works")
    assert headway.release(repo.path)["state"] == "succeeded"


def test_a_release_waits_through_a_restart_of_everything_on_postgresql(tmp_path: Path, postgres: str) -> None:
    (tmp_path / "home").mkdir()
    own = Up(tmp_path / "home", HEADWAY_LEDGER_URL=postgres)
    repo = Repo(tmp_path / "app", "patient", APPROVED % "1h")
    with own.running():
        headway = Headway(own)
        told = headway.release(repo.path, code=3)
        with headway.control() as control:
            headway.until(lambda: control.flow_run(told["flow_run_id"]).type == "PAUSED")
        assert own.stop() == 0
        own.start()
        assert headway.ledger.releases.get(told["id"]).state == "waiting"
        headway.run("approve", told["name"])
        headway.until(lambda: headway.ledger.releases.get(told["id"]).state == "succeeded")
        assert version(headway.url("patient", "production")) == told["sha"]
    assert not (tmp_path / "home" / "ledger.db").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid():
        pytest.skip("only root may mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_full_disk_during_a_release(small_disk: Path, tmp_path: Path) -> None:
    own = Up(small_disk, HEADWAY_RUNNER="host")  # in the sandbox, a check does not see Headway's files
    own.breaks_the_server = True
    fills = f"dd if=/dev/zero of={small_disk}/filler bs=1M 2>&1 | tail -1"
    repo = Repo(tmp_path / "app", "full")
    with own.running():
        headway = Headway(own)
        headway.release(repo.path)
        good = repo.git("rev-parse", "HEAD")
        settings = (repo.path / "headway.yaml").read_text()
        repo.commit("fills the disk", {"headway.yaml": settings.replace('{check: "true"}', f"{{check: '{fills}'}}")})
        failed = headway.run("release", repo.path, code=None)
        assert failed.returncode in (1, 2)
        assert "space left" in failed.stderr or "disk" in failed.stderr
        (small_disk / "filler").unlink()
        headway.until(lambda: headway.ledger.releases.unfinished() == [])
        assert [release.state for release in headway.ledger.releases.recent("full")] == ["failed", "succeeded"]
        assert version(headway.url("full", "staging")) == version(headway.url("full", "production")) == good
        repo.commit("fits again", {"headway.yaml": settings})
        assert headway.release(repo.path)["state"] == "succeeded"
