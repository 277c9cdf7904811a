"""`headway up` itself: stopped in the middle, started again, on PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Headway, Repo, Up
from tests.e2e.test_release import APPROVED, SLOW, start_and_wait_for_launch, version

pytestmark = pytest.mark.e2e


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    (tmp_path / "home").mkdir()
    service = Up(tmp_path / "home")
    with service.running():
        yield service


@pytest.mark.parametrize("service", ["up", "worker"])
def test_stopped_in_the_middle_of_a_rollout_it_brings_back_what_it_changed(own: Up, repo: Repo, service: str) -> None:
    headway = Headway(own)
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave(SLOW)
    run_id = start_and_wait_for_launch(headway, repo)
    if service == "up":
        assert own.stop() == 0
        assert "bring back what they began to change" in own.log.read_text()
    else:
        own.child("worker start").send_signal(signal.SIGTERM)
        assert own.process.wait(90) != 0
        assert "worker has ended" in own.log.read_text()
    release = headway.ledger.release_of_run(run_id)
    assert release is not None
    assert release.state == "cancelled"
    assert headway.ledger.unfinished_rollouts(repo.app) == []
    assert {version(headway.url(repo.app, "staging")) for _ in range(10)} == {good}


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
        assert headway.ledger.release(told["id"]).state == "waiting"
        headway.run("approve", told["name"], "--by", "bob@example.com")
        headway.until(lambda: headway.ledger.release(told["id"]).state == "succeeded")
        assert version(headway.url("patient", "production")) == told["sha"]
    assert not (tmp_path / "home" / "ledger.db").exists()
