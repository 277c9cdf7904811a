"""Commands that a person follows and cancels a release with, and `headway down`."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import ME, Headway, Repo, Up
from tests.e2e.test_release import SLOW, start_and_wait_for_launch, version

pytestmark = pytest.mark.e2e

CHATTER = ("prefect", "flow run", "task run", "Traceback")


def test_a_release_is_followed_to_its_url_and_shown_afterwards(headway: Headway, repo: Repo) -> None:
    released = headway.run("release", repo.path)

    staging, production = released.stdout.splitlines()[-2:]
    assert staging == f"staging: {headway.url(repo.app, 'staging')}"
    assert production == f"production: {headway.url(repo.app, 'production')}"
    shown = headway.run("status", repo.app).stdout
    for words in ("#1", "Ann", "first", headway.url(repo.app, "production")):
        assert words in shown
    assert headway.run("watch", f"{repo.app}#1").stdout.splitlines()[-1] == production
    after_the_address = released.stdout.partition("\n")[2] + released.stderr + shown
    assert [words for words in CHATTER if words.casefold() in after_the_address.casefold()] == []


def test_a_release_that_is_cancelled_is_rolled_back_and_says_by_whom(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave(SLOW)
    start_and_wait_for_launch(headway, repo)

    said = headway.run("cancel", f"{repo.app}#2", "--reason", "wrong branch").stdout

    assert f"{repo.app}#2 cancelled: cancelled by {ME}: wrong branch" in said
    assert {version(headway.url(repo.app, "staging")) for _ in range(10)} == {good}
    again = headway.run("cancel", f"{repo.app}#2", code=2)
    assert f"{repo.app}#2 cannot be cancelled: it is cancelled" in again.stderr


@pytest.mark.timeout(600)
def test_down_stops_the_service_and_the_apps_and_up_brings_them_back(tmp_path: Path, repo: Repo) -> None:
    (tmp_path / "home").mkdir()
    own = Up(tmp_path / "home").with_database()
    headway = Headway(own)
    headway.patience = 240.0
    with own.running():
        headway.release(repo.path)
        assert len(_instances(repo.app)) == 3

        headway.run("down", "--apps")
        assert own.process.wait(60) == 0
        assert _instances(repo.app) == []
        assert headway.run("down").stdout == "headway up is not running\n"

        own.start()
        headway.until(lambda: len(_instances(repo.app)) == 3)
        sha = repo.git("rev-parse", "HEAD")
        headway.until(lambda: _version(headway, repo.app) == sha)

        assert "stopped" in headway.run("down").stdout
        assert own.process.wait(60) == 0
        assert len(_instances(repo.app)) == 3


def _instances(app: str) -> list[psutil.Process]:
    """Processes of the app's instances."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADWAY_APP") == app and "app.py" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _version(headway: Headway, app: str) -> str | None:
    try:
        return version(headway.url(app, "production"))
    except (OSError, KeyError, ValueError):
        time.sleep(0.2)
        return None


def test_an_app_is_deleted_with_everything_of_it_after_a_confirmation(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    production = headway.url(repo.app, "production")
    refused = headway.run("app", "delete", repo.app, code=2)
    assert f"{repo.app} was not deleted" in refused.stderr
    assert version(production) == repo.git("rev-parse", "HEAD")

    headway.run("app", "delete", repo.app, "--env", "staging", "--yes")
    assert headway.ledger.rollouts.environments(repo.app) == ["production"]
    assert len(_instances(repo.app)) == 2

    headway.run("app", "delete", repo.app, "--yes")
    assert _instances(repo.app) == []
    assert repo.app not in headway.ledger.releases.apps()
    assert f"no app {repo.app}" in headway.run("status", repo.app, code=2).stderr
    with pytest.raises(httpx.ConnectError):
        version(production)

    assert headway.release(repo.path)["number"] == 1
