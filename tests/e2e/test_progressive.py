"""Blue-green and canary on a real Envoy: preview route, analysis, operator commands, rehearsal, supersede."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from headway.ledger import ReleaseRecord
from headway.rollout.load_generator import Load
from tests.e2e.conftest import ME, Headway, Repo

pytestmark = pytest.mark.e2e

SETTINGS = """
app: {app}
run: exec python3 app.py
environments:
  production:
    target: process/production
    stop_grace: 1s
    drain: 1s
    smoke: [{{get: /, version: true, deadline: 5s}}]
    strategy: %s
"""
FOREVER = "{{canary: {{steps: [{{weight: 20%, pause: forever, header: {{x-beta: 'yes'}}}}, 60%, 100%]}}}}"

LONELY = """
      canary:
        steps: [50%, 100%]
        analysis:
          window: 1s
          success_rate: ">= 99"
          synthetic: {{requests: [{{get: /buy}}], rate: 100}}"""


def version(url: str, **headers: str) -> str:
    return str(httpx.get(url, headers=headers, trust_env=False).json()["version"])


def following(headway: Headway, repo: Repo, **parameters: Any) -> tuple[str, ReleaseRecord]:
    """Start a release; its run and its record, once there is one."""
    run = headway.start(repo.path, **parameters)
    return run, headway.until(lambda: headway.ledger.releases.by_run(run))


def ended(headway: Headway, release: ReleaseRecord) -> ReleaseRecord:
    record: ReleaseRecord = headway.until(
        lambda: (found := headway.ledger.releases.get(release.id)) and not found.open and found, 90
    )
    return record


def titles(headway: Headway, name: str, run: str) -> list[str]:
    """The names of the task runs that the rollout of this release has in the UI, in their order."""
    with headway.prefect as prefect:
        asked = {"flow_runs": {"parent_task_run_id": {"is_null_": False}}, "sort": "START_TIME_ASC"}
        runs = prefect.post("/flow_runs/filter", json=asked | {"limit": 200}).json()
        rollouts = [one["id"] for one in runs if one["name"].endswith(f" to {name}") and root(prefect, one) == run]
        asked = {"task_runs": {"flow_run_id": {"any_": rollouts}}, "sort": "EXPECTED_START_TIME_ASC"}
        tasks = prefect.post("/task_runs/filter", json=asked | {"limit": 200}).json()
    return [task["name"] for task in sorted(tasks, key=lambda task: str(task["start_time"]))]


def root(prefect: httpx.Client, run: dict[str, Any]) -> str:
    task = prefect.get(f"/task_runs/{run['parent_task_run_id']}").json()
    return str(task["flow_run_id"])


def test_blue_green_is_verified_at_the_preview_route_and_rolls_back_in_one_switch(
    headway: Headway, tmp_path: Path
) -> None:
    wanted = "{{blue_green: {{auto_promotion: false, scale_down_delay: 3m, rehearse: 5s, pre_promotion: %s}}}}"
    synthetic = "{{window: 1s, success_rate: '>= 99', synthetic: {{requests: [{{get: /}}], rate: 50}}}}"
    repo = Repo(tmp_path / "app", "colours", SETTINGS % wanted % synthetic)
    headway.release(repo.path)
    blue = repo.git("rev-parse", "HEAD")
    green = repo.behave("    return 200, {'colour': 'green'}")
    url = headway.url("colours", "production")
    with Load(url, rate=100) as load:
        told = headway.release(repo.path, code=3)
        assert told["state"] == "waiting"
        assert {version(url) for _ in range(10)} == {blue}
        assert version(url, **{"x-headway-preview": "true"}) == green
        assert "waits for a decision: promote it?: headway promote" in headway.run("status").stdout
        headway.run("promote", "colours", "production")
        headway.until(lambda: not headway.ledger.releases.get(told["id"]).open)
        assert headway.ledger.releases.get(told["id"]).state == "succeeded"
        assert {version(url) for _ in range(10)} == {green}
        headway.run("rollback", "colours", "production")
    assert load.failures == []
    assert {version(url) for _ in range(10)} == {blue}
    steps = headway.ledger.rollouts.steps(headway.ledger.rollouts.by_release(told["id"])[0].id)
    assert [step.title.split(" ")[0] for step in steps] == [
        "launch", "await", "route", "verify", "analyze", "rehearse", "wait", "route", "promote",
    ]  # fmt: skip
    assert "in the preview at http://127.0.0.1:" in steps[2].detail
    assert "1 smoke tests passed" in steps[3].detail
    assert "synthetic" in steps[4].detail
    assert "the rollback took" in steps[5].detail
    assert f"promoted by {ME}" in steps[6].detail
    assert sum(step.failed or 0 for step in steps) == 0
    assert sum(step.requests or 0 for step in steps) > 100


def test_warm_revision_is_stopped_after_its_time(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "warm", SETTINGS % "{{blue_green: {{scale_down_delay: 4s}}}}")
    headway.release(repo.path)
    old = headway.ledger.rollouts.live("warm", "production")
    repo.behave("    return 200, {'new': True}")
    headway.release(repo.path)
    new = headway.ledger.rollouts.live("warm", "production")
    state = headway.home / "targets" / "production" / "apps" / "warm" / "state.json"
    assert set(json.loads(state.read_text())["instances"]) == {old, new}
    headway.until(lambda: set(json.loads(state.read_text())["instances"]) == {new}, 90)
    assert version(headway.url("warm", "production")) == repo.git("rev-parse", "HEAD")
    headway.run("rollback", "warm", "production")
    assert headway.ledger.rollouts.live("warm", "production") == old


def test_canary_waits_for_operator_commands(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "steered", SETTINGS % FOREVER)
    headway.release(repo.path)
    stable = repo.git("rev-parse", "HEAD")
    sha = repo.behave("    return 200, {'new': True}")
    run, release = following(headway, repo)
    headway.until(lambda: headway.ledger.releases.get(release.id).state == "waiting")
    url = headway.url("steered", "production")
    assert {version(url, **{"x-beta": "yes"}) for _ in range(20)} == {sha}
    assert {version(url) for _ in range(60)} == {stable, sha}
    with headway.control() as control:  # as the form in the UI does
        asked = {"app": "steered", "environment": "production", "decision": "skip", "by": "bob", "reason": "looks good"}
        control.start("steer/main", asked)
    assert ended(headway, release).state == "succeeded"
    assert version(url) == sha
    rollout = headway.ledger.rollouts.by_release(release.id)[0]
    assert [
        step.detail for step in headway.ledger.rollouts.steps(rollout.id) if step.title.startswith("wait for a person")
    ] == ["skipped by bob: looks good"]
    assert [title for title in titles(headway, "production", run) if "%" in title] == [
        "canary 20%",
        "wait for a person at 20%",
        "canary 60%",
        "canary 100%",
    ]
    assert "no rollout is under way" in headway.run("promote", "steered", "production", code=2).stderr


def test_aborted_canary_rolls_back(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "aborted", SETTINGS % FOREVER)
    headway.release(repo.path)
    stable = repo.git("rev-parse", "HEAD")
    repo.behave("    return 200, {'new': True}")
    told = headway.release(repo.path, code=3)
    assert "headway promote, skip or abort aborted production" in headway.run("approve", told["name"], code=1).stderr
    headway.run("abort", "aborted", "production", "--reason", "wrong colour")
    closed = headway.until(lambda: not (found := headway.ledger.releases.get(told["id"])).open and found)
    assert (closed.state, closed.reason.endswith(f"was aborted by {ME}: wrong colour")) == ("rolled_back", True)
    url = headway.url("aborted", "production")
    assert {version(url) for _ in range(30)} == {stable}
    assert {version(url, **{"x-beta": "yes"}) for _ in range(10)} == {stable}


def test_abort_during_the_smoke_test_rolls_back(headway: Headway, tmp_path: Path) -> None:
    slow = SETTINGS.replace("deadline: 5s", "expect_text: '\"warm\": true', deadline: 20s")
    repo = Repo(tmp_path / "app", "late", slow % "rolling")
    repo.behave("    return 200, {'warm': True}")
    headway.release(repo.path)
    stable = repo.git("rev-parse", "HEAD")
    repo.behave("    return 200, {'warm': time.monotonic() - began > 12}\nbegan = __import__('time').monotonic()")
    _, release = following(headway, repo)
    headway.until(lambda: any("smoke" in stage.name for stage in headway.ledger.stages.by_release(release.id)))
    headway.run("abort", "late", "production", "--reason", "wrong colour")
    closed = ended(headway, release)
    assert (closed.state, closed.reason.endswith(f"was aborted by {ME}: wrong colour")) == ("rolled_back", True)
    assert version(headway.url("late", "production")) == stable


def test_newer_release_supersedes_a_canary_if_configured(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "newer", SETTINGS % FOREVER + "    supersede: abort\n")
    headway.release(repo.path)
    repo.behave("    return 200, {'second': True}")
    _, second = following(headway, repo)
    headway.until(lambda: headway.ledger.releases.get(second.id).state == "waiting")
    sha = repo.behave("    return 200, {'third': True}")
    _, third = following(headway, repo)
    assert ended(headway, second).state == "superseded"
    assert "superseded by newer#3" in headway.ledger.releases.get(second.id).reason
    headway.until(lambda: headway.ledger.releases.get(third.id).state == "waiting")
    headway.run("promote", "newer", "production")
    assert ended(headway, third).state == "succeeded"
    assert version(headway.url("newer", "production")) == sha


def test_newer_release_waits_for_a_canary_by_default(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "older", SETTINGS % FOREVER)
    headway.release(repo.path)
    repo.behave("    return 200, {'second': True}")
    _, second = following(headway, repo)
    headway.until(lambda: headway.ledger.releases.get(second.id).state == "waiting")
    repo.behave("    return 200, {'third': True}")
    _, third = following(headway, repo)
    headway.until(lambda: headway.ledger.locks.holder("older", "production"))
    headway.run("promote", "older", "production")
    assert ended(headway, second).state == "succeeded"
    headway.until(lambda: headway.ledger.releases.get(third.id).state == "waiting")
    headway.run("promote", "older", "production")
    assert ended(headway, third).state == "succeeded"


def test_synthetic_requests_supplement_few_users(headway: Headway, tmp_path: Path) -> None:
    analysis = (
        "{{window: 1s, min_requests: 20, success_rate: '>= 99', synthetic: {{requests: [{{get: /buy}}], rate: 100}}}}"
    )
    repo = Repo(
        tmp_path / "app", "lonely", SETTINGS % f"{{{{canary: {{{{steps: [50%, 100%], analysis: {analysis}}}}}}}}}"
    )
    headway.release(repo.path)
    repo.behave("    return 200, {'new': True}")
    told = headway.release(repo.path)
    steps = headway.ledger.rollouts.steps(headway.ledger.rollouts.by_release(told["id"])[0].id)
    judged = [step.detail for step in steps if step.title.startswith("analyze")]
    assert len(judged) == 2
    assert all("requests were synthetic" in detail for detail in judged)
    repo.behave("    return (500 if path == '/buy' else 200), {}")
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "success_rate >= 99 % does not hold" in told["reason"]
