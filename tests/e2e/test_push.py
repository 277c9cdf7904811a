"""`git push` to a real bare repository ends in a release."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import pytest

from headway.ledger import Ledger, StageRecord
from tests.e2e.conftest import APP, GOOD, Headway, Repo

pytestmark = pytest.mark.e2e

BURST = 15


class Server:
    """A bare repository with the hook that `headway app hook` prints."""

    def __init__(self, place: Path, headway: Headway, repo: Repo) -> None:
        self.path = place / "server" / "shop.git"
        self.headway = headway
        self.repo = repo
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.path], check=True)
        headway.run("app", "add", self.path, "--name", repo.app, "--secret", "e2e-webhook")
        hook = self.path / "hooks" / "post-receive"
        hook.write_text(headway.run("app", "hook", repo.app, headway.web_url).stdout)
        hook.chmod(0o755)
        (hook.parent / "headway-secret").write_text(headway.environment["HEADWAY_SECRET_E2E_WEBHOOK"] + "\n")
        repo.git("remote", "add", "origin", str(self.path))

    def push(self, *refs: str) -> str:
        done = subprocess.run(
            ["git", "push", "--force", "origin", *refs], cwd=self.repo.path, check=True, capture_output=True, text=True
        )
        return done.stderr

    def states(self, ledger: Ledger) -> list[str]:
        """Of the app's releases, the newest first."""
        return [release.state for release in ledger.releases.recent(self.repo.app)]


@pytest.fixture
def server(tmp_path: Path, headway: Headway, repo: Repo) -> Server:
    return Server(tmp_path, headway, repo)


def test_git_push_is_a_release(server: Server, headway: Headway, repo: Repo) -> None:
    said = server.push("main")
    assert '{"stored":1,"ignored":[]}' in said

    headway.until(lambda: server.states(headway.ledger) == ["succeeded"])

    (release,) = headway.ledger.releases.recent(repo.app)
    assert release.sha == repo.git("rev-parse", "HEAD")
    assert release.requested_by.endswith("at generic")
    assert "started" in headway.run("app", "events", repo.app).stdout


def test_a_merge_group_is_checked_and_deploys_nothing(server: Server, headway: Headway, repo: Repo) -> None:
    server.push("main:refs/heads/gh-readonly-queue/main/pr-1")
    sha = repo.git("rev-parse", "HEAD")
    with headway.control() as control:
        control.start("merge-group/check-merge-group", {"app": repo.app, "sha": sha, "by": "ann"})
    queue = f"{repo.app}.queue"
    headway.until(lambda: [one.state for one in headway.ledger.releases.recent(queue)] == ["succeeded"])
    (release,) = headway.ledger.releases.recent(queue)
    stages = {stage.name: stage.state for stage in headway.ledger.stages.by_release(release.id)}
    assert stages["all checks"] == "passed"
    assert "build" not in stages
    assert headway.ledger.rollouts.by_release(release.id) == []


def test_run_that_dies_before_reading_the_settings_is_reported(server: Server, headway: Headway, repo: Repo) -> None:
    server.push("main")
    headway.until(lambda: server.states(headway.ledger) == ["succeeded"])
    sha = repo.commit("a mistake", {"headway.yaml": f"app: {repo.app}\nchecks: 7\n"})
    server.push("main")

    headway.until(lambda: server.states(headway.ledger) == ["failed", "succeeded"])

    failed = headway.ledger.releases.recent(repo.app)[0]
    assert failed.sha == sha
    assert failed.reason == "headway.yaml:2: checks: expected a mapping, got 7"
    for command in (("status",), ("app", "events")):
        assert f"{repo.app}#2 failed: {failed.reason}" in headway.run(*command, repo.app).stdout
    assert failed.id in [release.id for release in headway.ledger.statuses.releases_to_report([repo.app])]


WAITS = """
app: {app}
checks: {{check: "{check}"}}
run: exec python3 app.py
environments:
  staging: {{target: process/staging}}
  production: {{target: process/production, approval: true}}
"""


def test_burst_of_pushes_releases_the_last(server: Server, headway: Headway, repo: Repo) -> None:
    """Pushes as fast as git can: the last is released, and each of the others has a recorded outcome."""
    for number in range(BURST):
        repo.commit(f"change {number}", {"n": str(number)})
        server.push("main")

    head = repo.git("rev-parse", "HEAD")
    headway.until(lambda: _ended(server, headway) and headway.ledger.releases.recent(repo.app)[0].sha == head, 180)

    came = headway.ledger.deliveries.recent(repo.app, 100)
    assert len(came) == BURST
    assert {one.state for one in came} <= {"started", "superseded", "duplicate"}
    newest, *others = headway.ledger.releases.recent(repo.app, 100)
    assert (newest.sha, newest.state) == (head, "succeeded")
    # One that was at work in an environment by then was let go on; every other says by whom it was superseded.
    assert {release.state for release in others} <= {"superseded", "succeeded"}
    assert all("superseded by" in release.reason for release in others if release.state == "superseded")


def _ended(server: Server, headway: Headway) -> bool:
    """Every release has ended, and every delivery is settled."""
    releases = headway.ledger.releases.recent(server.repo.app, 100)
    started = [one for one in headway.ledger.deliveries.recent(server.repo.app, 100) if one.state == "started"]
    return not headway.ledger.deliveries.due() and len(releases) == len(started) and not any(r.open for r in releases)


def test_checks_of_an_older_commit_are_cancelled(server: Server, headway: Headway, repo: Repo) -> None:
    settings = WAITS.replace(", approval: true", "")
    repo.commit("slow checks", {"headway.yaml": settings.format(app=repo.app, check="sleep 300")})
    server.push("main")
    headway.until(lambda: "check" in [stage.name for stage in _stages(server, headway)])
    repo.commit("quick checks", {"headway.yaml": settings.format(app=repo.app, check="true")})
    server.push("main")

    headway.until(lambda: server.states(headway.ledger) == ["succeeded", "superseded"])

    newer, older = headway.ledger.releases.recent(repo.app)
    assert older.reason.startswith("superseded by ")
    assert newer.sha
    assert newer.sha[:7] in older.reason
    assert {stage.name: stage.state for stage in headway.ledger.stages.by_release(older.id)}["check"] == "cancelled"
    with headway.control() as control:
        assert control.flow_run(str(older.flow_run_id)).state == "Superseded"


def _stages(server: Server, headway: Headway) -> list[StageRecord]:
    releases = headway.ledger.releases.recent(server.repo.app)
    return headway.ledger.stages.by_release(releases[0].id) if releases else []


def test_a_waiting_approval_of_an_older_commit_is_void(server: Server, headway: Headway, repo: Repo) -> None:
    repo.commit("approval", {"headway.yaml": WAITS.format(app=repo.app, check="true")})
    server.push("main")
    headway.until(lambda: server.states(headway.ledger) == ["waiting"])
    (older,) = headway.ledger.releases.recent(repo.app)
    asked = headway.ledger.approvals.waiting(older.id)
    repo.commit("newer", {"n": "1"})
    server.push("main")

    headway.until(lambda: server.states(headway.ledger) == ["waiting", "superseded"])

    assert asked
    assert headway.ledger.approvals.get(asked.id).state == "void"
    assert "superseded by" in headway.ledger.releases.get(older.id).reason
    assert "waits for no approval" in headway.run("approve", older.name, code=1).stderr
    newer = headway.ledger.releases.recent(repo.app)[0]
    headway.run("approve", newer.name)
    headway.until(lambda: server.states(headway.ledger) == ["succeeded", "superseded"])


def test_push_never_cancels_a_rollout(server: Server, headway: Headway, repo: Repo) -> None:
    slow = "import time\ntime.sleep(4)\n"
    repo.commit("slow start", {"app.py": slow + GOOD + APP})
    server.push("main")
    headway.until(lambda: "staging" in [stage.name for stage in _stages(server, headway)])
    repo.commit("newer", {"app.py": GOOD + APP})
    server.push("main")

    headway.until(lambda: _ended(server, headway) and len(server.states(headway.ledger)) == 2, 120)

    newer, older = headway.ledger.releases.recent(repo.app)
    assert newer.state == "succeeded"
    rollouts = [(one.kind, one.environment, one.state) for one in headway.ledger.rollouts.by_release(older.id)]
    assert rollouts == [("release", "staging", "done")]
    assert older.state == "superseded"


def test_nightly_releases_unreleased_commits_and_explains_the_rest(
    server: Server, headway: Headway, repo: Repo
) -> None:
    subprocess.run(["git", "push", "--quiet", "--no-verify", "origin", "main"], cwd=repo.path, check=True, timeout=60)
    headway.until(lambda: server.states(headway.ledger) == ["succeeded"])
    (server.path / "hooks" / "post-receive").unlink()  # from now on pushes send no webhook
    sha = repo.commit("merged in the evening", {"n": "1"})
    server.push("main")

    assert f"| {repo.app} | `{sha[:7]}` | released | {repo.app}#2 succeeded |" in _night(headway, repo)
    assert f"| {repo.app} | `{sha[:7]}` | not released | it is live |" in _night(headway, repo)


def test_a_night_starts_from_its_schedule(server: Server, headway: Headway, repo: Repo) -> None:
    subprocess.run(["git", "push", "--quiet", "--no-verify", "origin", "main"], cwd=repo.path, check=True, timeout=60)
    headway.until(lambda: server.states(headway.ledger) == ["succeeded"])
    (server.path / "hooks" / "post-receive").unlink()
    repo.commit("merged in the evening", {"n": "1"})
    server.push("main")

    with headway.prefect as api:
        deployment = api.get("/deployments/name/nightly/release-nightly").json()["id"]
        every_minute = {"cron": "* * * * *", "timezone": "UTC"}
        schedule = {"active": True, "schedule": every_minute, "parameters": {"apps": [repo.app]}}
        (made,) = api.post(f"/deployments/{deployment}/schedules", json=[schedule]).raise_for_status().json()
        try:
            headway.until(lambda: server.states(headway.ledger) == ["succeeded", "succeeded"], 240)
        finally:
            api.delete(f"/deployments/{deployment}/schedules/{made['id']}").raise_for_status()
    released = headway.ledger.releases.recent(repo.app)[0]
    assert (released.sha, released.requested_by) == (repo.git("rev-parse", "HEAD"), "nightly")
    assert httpx.get(f"{headway.web_url}/health", trust_env=False).json()["checks"]["schedules"] == "ok"


def _night(headway: Headway, repo: Repo) -> str:
    """The summary of a night of the app's own."""
    with headway.control() as control:
        run = control.start("nightly/main", {"apps": [repo.app]})
        headway.until(lambda: control.flow_run(run).final, 120)
        assert control.flow_run(run).state == "Completed"
        asked = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["nightly"]}}}
        with headway.prefect as prefect:
            (summary,) = prefect.post("/artifacts/filter", json=asked).json()
    return str(summary["data"])
