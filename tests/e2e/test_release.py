"""A merge to main reaches production, and is rolled back automatically on failure."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from headway.domain.plan import Plan
from headway.domain.principal import Role
from headway.rollout.load_generator import Load
from headway.system import directories
from tests.e2e.conftest import APP, GOOD, ME, SETTINGS, Headway, Repo, Up

pytestmark = pytest.mark.e2e

SLOW = "    time.sleep(600 if path == '/health' else 0)\n    return 200, {}"
WATCHED = """
app: {app}
run: exec python3 app.py
environments:
  production:
    target: process/production
    instances: 2
    stop_grace: 2s
    drain: 3s
    strategy: {{rolling: {{analysis: {{window: 1s, min_requests: 20, success_rate: ">= 99"}}}}}}
"""
CANARY = """
app: {app}
run: exec python3 app.py
environments:
  production:
    target: process/production
    stop_grace: 2s
    drain: 3s
    strategy: {{canary: {{steps: [20%, 50%, 100%], analysis: {{window: 4s, min_requests: 1, false_rollback: 1%}}}}}}
"""
APPROVED = """
app: {app}
run: exec python3 app.py
environments:
  production: {{target: process/production, approval: {{expires: %s}}}}
"""
TWO = APPROVED % "1h, count: 2, not_author: true"


def version(url: str) -> str:
    return str(httpx.get(url, trust_env=False).json()["version"])


def test_a_commit_reaches_production(headway: Headway, repo: Repo) -> None:
    sha = repo.git("rev-parse", "HEAD")
    told = headway.release(repo.path)
    assert told["state"] == "succeeded"
    assert told["sha"] == sha
    states = {stage["name"]: stage["state"] for stage in told["stages"]}
    assert states == {
        "configuration": "passed",
        "secrets in the repository": "passed",
        "check": "passed",
        "build": "passed",
        "staging approval": "skipped",
        "staging": "passed",
        "staging smoke": "passed",
        "production approval": "skipped",
        "production": "passed",
        "production smoke": "passed",
    }
    assert version(headway.url(repo.app, "staging")) == version(headway.url(repo.app, "production")) == sha
    assert told["digest"].startswith("sha256:")
    revisions = [headway.ledger.rollouts.live(repo.app, place) for place in ("staging", "production")]
    assert {
        headway.ledger.revisions.find(repo.app, one, environment=place)[0].digest
        for one, place in zip([str(revision) for revision in revisions], ("staging", "production"), strict=True)
    } == {told["digest"]}
    assert sha[:7] in headway.run("history", repo.app).stdout
    assert str(revisions[1]) in headway.run("status", repo.app).stdout
    assert "listening on" in headway.run("logs", repo.app, "production").stdout


def test_the_commit_is_released_not_the_head_of_the_branch(headway: Headway, repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    repo.behave("    return 200, {'new': True}")
    assert headway.release(repo.path, "--ref", first, "--to", "staging")["sha"] == first
    assert version(headway.url(repo.app, "staging")) == first


def test_a_release_under_load_drops_nothing(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    sha = repo.behave("    return 200, {'second': True}")
    with Load(headway.url(repo.app, "production"), rate=100) as load:
        users = headway.release(repo.path)["users"]
        headway.until(lambda: len(load.seen) == 2)
        code = headway.run("rollback", repo.app, "production", "--reason", "a test")
    assert load.sent > 100
    assert load.failures == []
    assert users["requests"] > 50
    assert users["failed"] == 0
    assert code.stdout.startswith(f"{repo.app} production: ")
    assert version(headway.url(repo.app, "production")) != sha


def test_bad_version_rolls_back_automatically(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "bad", WATCHED)
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave("    return (500, {}) if path == '/buy' else (200, {})", "breaks buying")
    with Load(headway.url("bad", "production"), paths=("/", "/buy"), rate=100):
        told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "success_rate >= 99 % does not hold" in told["reason"]
    assert {version(headway.url("bad", "production")) for _ in range(20)} == {good}
    kinds = [(rollout.kind, rollout.state) for rollout in headway.ledger.rollouts.by_release(told["id"])]
    assert kinds == [("release", "rolled_back"), ("rollback", "done")]
    assert 0 < told["users"]["failed"] < told["users"]["requests"]
    with headway.control() as control:
        run = headway.until(lambda: (one := control.flow_run(told["flow_run_id"])).final and one)
    assert (run.name, run.state) == ("bad#2 breaks buying", "Rolled back")
    assert run.message.startswith(told["reason"])


def test_canary_worse_than_stable_rolls_back_automatically(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "canary", CANARY)
    fails = """    import random
    broken = random.random() < {share} and path != '/health'
    return (500 if broken else 200), {{}}"""
    repo.behave(fails.format(share=0.05))
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    with Load(headway.url("canary", "production"), rate=200, workers=8):
        repo.behave(fails.format(share=0.6))
        told = headway.release(repo.path, code=1)
        repo.behave(fails.format(share=0.05))
        same = headway.release(repo.path)
    assert told["state"] == "rolled_back"
    assert "worse, false-alarm chance under 1 %" in told["reason"]
    (there, _) = headway.ledger.rollouts.by_release(told["id"])
    routes = [step.title for step in headway.ledger.rollouts.steps(there.id) if step.title.startswith("route")]
    assert routes == [f"route {there.plan.new} 20 %, {there.plan.old} 80 %"]
    assert there.plan.old is not None
    assert good.startswith(there.plan.old.split("-")[0])
    assert same["state"] == "succeeded"
    again = headway.run("judge", told["name"]).stdout
    assert "fail after" in again
    assert "worse, false-alarm chance under 1 %" in again
    lenient = json.loads(headway.run("judge", told["name"], "--success-rate", ">= 1", "--json").stdout)
    assert [one["judgement"]["verdict"] for one in lenient["analyses"]] == ["pass"]
    assert "--p99: expected" in headway.run("judge", told["name"], "--p99", "fast", code=2).stderr
    assert "has no analysis" in headway.run("judge", "canary#1", code=2).stderr
    assert version(headway.url("canary", "production")) == same["sha"]


def test_no_requests_to_judge_is_not_a_pass(headway: Headway, tmp_path: Path) -> None:
    patient = WATCHED.replace("    stop_grace", "    progress_deadline: 3s\n    stop_grace")
    repo = Repo(tmp_path / "app", "quiet", patient)
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave("    return 200, {'second': True}")
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "no verdict" in told["reason"]
    assert version(headway.url("quiet", "production")) == good


@pytest.mark.parametrize(
    ("name", "broken", "words"),
    [
        ("never-healthy", f"def answer(path):\n    return 503, {{}}\n{APP}", "answers 503"),
        ("dies-at-once", "print('no such table: users'); raise SystemExit(3)", "no such table: users"),
        (
            "wrong-version",
            f"def answer(path):\n    return 200, {{'version': 'abcdef1'}}\n{APP}",
            "answers version abcdef1",
        ),
    ],
)
def test_app_that_never_becomes_ready(headway: Headway, tmp_path: Path, name: str, broken: str, words: str) -> None:
    repo = Repo(tmp_path / "app", name)
    repo.commit("impatient", {"headway.yaml": (repo.path / "headway.yaml").read_text() + "health: {startup: 12s}\n"})
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.commit("broken", {"app.py": broken})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert words in told["reason"]
    assert version(headway.url(name, "staging")) == version(headway.url(name, "production")) == good


def test_app_that_exits_after_it_was_ready(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    settings = (
        (repo.path / "headway.yaml").read_text().replace("{get: /health", "{get: /, deadline: 3s}, {get: /health")
    )
    dies = "def answer(path):\n    if path == '/':\n        print('out of memory', flush=True)\n        os._exit(3)\n"
    repo.commit("dies of its first visitor", {"app.py": f"{dies}    return 200, {{}}\n{APP}", "headway.yaml": settings})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "staging: smoke: GET /: expected status 200; it answered 503" in told["reason"]
    assert version(headway.url(repo.app, "staging")) == version(headway.url(repo.app, "production")) == good
    assert "out of memory" in headway.run("logs", repo.app, "staging", "--revision", told["sha"][:7]).stdout


def test_failed_first_release_leaves_nothing_behind(headway: Headway, repo: Repo) -> None:
    repo.commit("broken", {"app.py": "raise SystemExit(3)"})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert headway.ledger.rollouts.live(repo.app, "staging") is None
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if f"/{repo.app}-edge" in " ".join(one.info["cmdline"] or ())
    ]
    repo.behave("    return 200, {}", "works")
    assert headway.release(repo.path)["state"] == "succeeded"


def test_failed_smoke_test_rolls_back(headway: Headway, repo: Repo) -> None:
    text = (repo.path / "headway.yaml").read_text().replace("deadline: 5s", "deadline: 1s, expect_text: welcome")
    repo.behave("    return 200, {'say': 'welcome'}")
    repo.commit("a stricter smoke test", {"headway.yaml": text})
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave("    return 200, {'say': 'go away'}")
    told = headway.release(repo.path, code=1)
    assert told["state"] == "rolled_back"
    assert "welcome" in told["reason"]
    assert told["users"] == {"requests": 0, "failed": 0, "worst": None}  # the smoke tests are no user's
    assert version(headway.url(repo.app, "staging")) == good
    assert all(stage["name"] != "production" for stage in told["stages"])


def test_failed_release_of_the_live_revision_keeps_it_live(headway: Headway, tmp_path: Path) -> None:
    ill = tmp_path / "ill"
    settings = SETTINGS.replace("instances: 2", "instances: 2\n    smoke: [{{get: /, deadline: 1s}}]")
    repo = Repo(tmp_path / "app", "again", settings)
    repo.behave(f"    return (500 if path == '/' and os.path.exists({str(ill)!r}) else 200), {{}}")
    headway.release(repo.path)
    live = headway.ledger.rollouts.live("again", "production")
    before = _pids("again")
    assert headway.release(repo.path)["state"] == "succeeded"
    assert _pids("again") == before
    ill.touch()
    told = headway.release(repo.path, code=1)
    ill.unlink()
    assert told["state"] == "rolled_back"
    assert headway.ledger.rollouts.live("again", "production") == live
    answer = httpx.get(headway.url("again", "production"), trust_env=False)
    assert (answer.status_code, answer.headers["x-headway-revision"]) == (200, live)


def test_failing_check_lets_the_others_finish(headway: Headway, tmp_path: Path) -> None:
    checks = """
app: {app}
checks:
  bad: {{run: "cp given.xml junit.xml; exit 1", reports: junit.xml}}
  slow: "sleep 1; touch done"
  after: {{run: "true", needs: [bad]}}
"""
    repo = Repo(tmp_path / "app", "failing", checks)
    report = (
        "<testsuite name='s' tests='2' failures='1'><testcase classname='shop' name='adds'/>"
        "<testcase classname='shop' name='pays'><failure message='expected 3, got 4'/></testcase></testsuite>"
    )
    repo.commit("report", {"given.xml": report})
    told = headway.release(repo.path, code=1)
    assert told["state"] == "failed"
    assert "1 of 2 tests failed" in told["reason"]
    states = {stage["name"]: stage["state"] for stage in told["stages"]}
    assert {name: states[name] for name in ("bad", "slow", "after")} == {
        "bad": "failed",
        "slow": "passed",
        "after": "skipped",
    }


def test_tests_and_coverage_are_shown_as_an_artifact(headway: Headway, tmp_path: Path) -> None:
    checks = """
app: {app}
checks: {{unit: {{run: "true", reports: junit.xml, coverage: lcov.info}}}}
"""
    lcov = "SF:shop.py\nDA:1,1\nDA:2,%d\nDA:3,%d\nDA:4,0\nend_of_record\n"
    cases = "".join(f"<testcase classname='shop' name='{name}'/>" for name in "ab")
    tests = f"<testsuite name='s' tests='2'>{cases}</testsuite>"
    repo = Repo(tmp_path / "app", "covered", checks)
    repo.commit("reports", {"junit.xml": tests, "lcov.info": lcov % (0, 0)})
    headway.release(repo.path)
    repo.commit("more tests", {"lcov.info": lcov % (1, 1)})
    stages = {stage["name"]: stage["detail"] for stage in headway.release(repo.path)["stages"]}
    assert stages["unit"] == "2 tests passed"
    with headway.prefect as prefect:
        asked = {"artifacts": {"key": {"any_": ["covered-unit"]}}}
        (artifact,) = prefect.post("/artifacts/latest/filter", json=asked).json()
    assert "2 tests, 0 failed" in artifact["data"]
    assert "Coverage: **75.0 %** (3 of 4 lines), +50.0 points since the last release (25.0 %)" in artifact["data"]


def test_check_with_unchanged_inputs_is_not_run_again(headway: Headway, tmp_path: Path) -> None:
    checks = """
app: {app}
checks:
  unit: {{run: "test -f app.py", inputs: {{paths: [app.py], tools: ["git --version"]}}}}
"""
    repo = Repo(tmp_path / "app", "cached", checks)
    headway.release(repo.path)
    repo.commit("docs only", {"README": "words"})
    told = headway.release(repo.path)
    assert [stage["detail"] for stage in told["stages"] if stage["name"] == "unit"] == [
        "same inputs passed in cached#1"
    ]
    repo.commit("code", {"app.py": GOOD})
    told = headway.release(repo.path)
    assert [stage["state"] for stage in told["stages"] if stage["name"] == "unit"] == ["passed"]


def test_secrets_are_not_in_the_logs(headway: Headway, tmp_path: Path) -> None:
    secret = """
app: {app}
run: exec python3 app.py
env: {{TOKEN: {{secret: true}}}}
environments:
  staging: {{target: process/staging, env: {{TOKEN: !secret nowhere/token}}}}
"""
    repo = Repo(tmp_path / "app", "secretive", secret)
    told = headway.release(repo.path, code=1)
    assert told["state"] == "failed"
    assert "configuration: staging: TOKEN: !secret nowhere/token" in told["reason"]


def test_approval_waits_without_a_process_and_is_recorded(headway: Headway, tmp_path: Path) -> None:
    """The release stays what it is, although its branch moves and the files of its run are lost meanwhile."""
    repo = Repo(tmp_path / "app", "approved", APPROVED % "1h")
    run_id = headway.start(repo.path)
    told = headway.until(lambda: (r := headway.ledger.releases.by_run(run_id)) and r.state == "waiting" and r)
    name = told.name
    headway.until(lambda: not _processes_of(run_id))
    repo.behave("    return 500, {}", "nobody has asked for a release of this commit")
    for place in ("workspaces", "prefect/storage"):
        directories.remove(headway.home / place)
    with headway.control() as control:
        headway.until(lambda: control.flow_run(run_id).type == "PAUSED")
    assert name in headway.run("status", "approved").stdout
    headway.run("approve", name, "--reason", "looks good")
    release = headway.until(lambda: (r := headway.ledger.releases.get(told.id)).state == "succeeded" and r)
    assert (release.sha, release.digest) == (told.sha, told.digest)
    assert version(headway.url("approved", "production")) == release.sha
    stages = {stage.name: stage.detail for stage in headway.ledger.stages.by_release(told.id)}
    assert stages["production approval"] == f"approved by {ME}: looks good"
    again = headway.run("approve", name, code=1)
    assert "waits for no approval" in again.stderr


def test_two_people_approve_in_the_form_and_on_the_command_line_and_the_author_may_not(
    headway: Headway, tmp_path: Path
) -> None:
    for person in ("ann", "bob"):
        headway.ledger.grants.grant(person, Role.APPROVER, None, by=ME)
    repo = Repo(tmp_path / "app", "asked", TWO)
    run = headway.start(repo.path)
    waiting = headway.until(lambda: (r := headway.ledger.releases.by_run(run)) and r.state == "waiting" and r)
    asked = headway.until(lambda: headway.ledger.approvals.waiting(waiting.id))

    def pressed(form: int, press: Callable[[], None]) -> None:
        """Press in the form, and wait until the run is suspended with the next one."""
        with headway.control() as control:
            headway.until(lambda: control.flow_run(run).type == "PAUSED")
            press()
            headway.until(lambda: headway.ledger.approvals.get(asked.id).form == form)
            headway.until(lambda: control.flow_run(run).type == "PAUSED")

    with headway.control() as control:  # past the sign-in
        pressed(1, lambda: control.resume(run, {"decision": "approve", "reason": "by owner@acme"}))
    pressed(2, lambda: headway.press(run, "ann", decision="approve", reason=""))  # Ann is the author
    assert headway.ledger.approvals.decisions(asked.id) == []
    pressed(3, lambda: headway.press(run, "bob", decision="approve", reason="fine"))
    assert "waits for approval of production, 1 of 2 approvals (bob), before" in headway.run("status", "asked").stdout
    said = headway.run("approve", waiting.name, "--by", "owner@acme")
    assert f"--by owner@acme is ignored: the name is now the authenticated user's, {ME}" in said.stderr
    headway.until(lambda: headway.ledger.releases.get(waiting.id).state == "succeeded")
    stages = {stage.name: stage.detail for stage in headway.ledger.stages.by_release(waiting.id)}
    assert stages["production approval"] == f"approved by {', '.join(sorted(['bob', ME]))}: bob: fine"
    assert [one.via for one in headway.ledger.approvals.decisions(asked.id)] == ["ui", "cli"]
    for person in ("ann", "bob"):
        headway.ledger.grants.revoke(person, None, by=ME)


def test_an_approval_is_void_when_something_else_is_live(headway: Headway, tmp_path: Path) -> None:
    """The older of two releases waits: approved late, it must not replace the newer one."""
    repo = Repo(tmp_path / "app", "overtaken", APPROVED % "1h")
    older = headway.release(repo.path, code=3)
    repo.behave("    return 200, {}")
    newer = headway.release(repo.path, "--yes")
    refused = headway.run("approve", older["name"], code=1)
    assert "void" in refused.stderr or "waits for no approval" in refused.stderr
    ended = headway.until(lambda: not (r := headway.ledger.releases.get(older["id"])).open and r)
    assert (ended.state, ended.reason) == ("superseded", f"production: superseded by {newer['name']}")
    assert version(headway.url("overtaken", "production")) == newer["sha"]


def test_an_approval_is_requested_again_when_something_else_went_live_before_the_rollout(
    headway: Headway, tmp_path: Path
) -> None:
    """While the approved release waits for the environment's lock, the environment is rolled back."""
    repo, ledger = Repo(tmp_path / "app", "asked-again", APPROVED % "1h"), headway.ledger
    headway.release(repo.path, "--yes")
    first = ledger.rollouts.live("asked-again", "production") or ""
    repo.behave("    return 200, {}")
    headway.release(repo.path, "--yes")
    second = ledger.rollouts.live("asked-again", "production")
    repo.behave("    return 200, {'third': True}")
    third = headway.release(repo.path, code=3)
    lock = headway.until(
        lambda: ledger.locks.acquire("asked-again", "production", holder="rollback", revision=first, lease=60)
    )
    headway.run("approve", third["name"])
    headway.until(lambda: ledger.releases.get(third["id"]).state == "running")
    plan = Plan(strategy="rollback", new=first, old=second, steps=())
    done = ledger.rollouts.start(None, "asked-again", "production", plan, kind="rollback", reason="", token=lock.token)
    ledger.rollouts.finish(done.id, "done")
    ledger.locks.release(lock)
    asked = headway.until(lambda: ledger.approvals.waiting(third["id"]))
    assert (asked.round, asked.evidence["live"]) == (1, first)
    assert f"(again: production: live was {second}, is {first})" in headway.run("status", "asked-again").stdout
    assert ledger.rollouts.by_release(third["id"]) == []
    headway.run("reject", third["name"])
    headway.until(lambda: ledger.releases.get(third["id"]).state == "rejected")


def test_a_rejected_release_ends_cleanly(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "rejected", APPROVED % "1h")
    told = headway.release(repo.path, code=3)
    with headway.control() as control:
        headway.until(lambda: control.flow_run(told["flow_run_id"]).type == "PAUSED")
        headway.run("reject", told["name"], "--reason", "not on a Friday")
        run = headway.until(lambda: (r := control.flow_run(told["flow_run_id"])).final and r)
    assert (run.type, run.state) == ("CANCELLED", "Rejected")
    release = headway.ledger.releases.get(told["id"])
    assert release.state == "rejected"
    assert "not on a Friday" in release.reason


def test_an_approval_expires(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "expired", APPROVED % "4s")
    told = headway.release(repo.path, code=3)
    headway.until(lambda: headway.ledger.releases.get(told["id"]).state == "expired")
    assert headway.run("approve", told["name"], code=1)


def test_yes_is_the_approval_of_who_requests_the_release(headway: Headway, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "app", "skipped", APPROVED % "1h")
    told = headway.release(repo.path, "--yes")
    stages = {stage["name"]: stage["detail"] for stage in told["stages"]}
    assert stages["production approval"] == f"approved by {ME}: --yes"


def test_cancelled_release_rolls_the_environment_back(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave(SLOW)
    run_id = start_and_wait_for_launch(headway, repo)
    with headway.control() as control:
        control.cancel(run_id)
        headway.until(lambda: control.flow_run(run_id).final, 60)
    _is_back(headway, repo, run_id, good, "cancelled")


def test_killed_release_rolls_the_environment_back(headway: Headway, up: Up, repo: Repo) -> None:
    headway.release(repo.path)
    good = repo.git("rev-parse", "HEAD")
    repo.behave(SLOW)
    run_id = start_and_wait_for_launch(headway, repo)
    warm = up.child("fork_server.py serve")
    for run in warm.children():  # forked: the flow run itself, not its client
        run.send_signal(signal.SIGKILL)
    _is_back(headway, repo, run_id, good, "failed")


def test_newer_release_supersedes_a_waiting_one(headway: Headway, repo: Repo) -> None:
    held = headway.ledger.locks.acquire(repo.app, "staging", holder="somebody", revision="r", lease=300)
    assert held is not None
    runs = []
    for number in range(3):
        repo.commit(f"change {number}", {"n": str(number)})
        runs.append(headway.start(repo.path, ref=repo.git("rev-parse", "HEAD")))
        headway.until(partial(_stage, headway, runs[-1], "build"))
    first, second, third = (headway.ledger.releases.by_run(run) for run in runs)
    assert first is not None
    assert second is not None
    assert third is not None
    headway.until(lambda: not headway.ledger.releases.get(second.id).open)
    headway.until(lambda: not headway.ledger.releases.get(first.id).open)
    headway.ledger.locks.release(held)
    headway.until(lambda: not headway.ledger.releases.get(third.id).open)
    ended = [headway.ledger.releases.get(one.id) for one in (first, second, third)]
    assert [release.state for release in ended] == ["superseded", "superseded", "succeeded"]
    assert f"superseded by {third.name}" in ended[1].reason
    assert version(headway.url(repo.app, "production")) == third.sha


def test_rollback_to_a_named_revision(headway: Headway, repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    headway.release(repo.path, "--to", "staging")
    for number in range(2):
        repo.commit(f"change {number}", {"n": str(number)})
        headway.release(repo.path, "--to", "staging")
    headway.run("rollback", repo.app, "staging", "--to", first)
    assert version(headway.url(repo.app, "staging")) == first
    unknown = headway.run("rollback", repo.app, "staging", "--to", "fffffff", code=2)
    assert "no revision fffffff" in unknown.stderr


def test_dead_instance_is_restarted(headway: Headway, repo: Repo) -> None:
    """The requests in flight at its death are sent to another instance, since the app asks for it."""
    repo.commit("retry", {"headway.yaml": SETTINGS.format(app=repo.app) + "http: {retry: 2}\n"})
    headway.release(repo.path)
    url = headway.url(repo.app, "production")
    instances = [process for process in psutil.process_iter() if _is_instance(process, repo.app, "production")]
    assert len(instances) == 2
    with Load(url, rate=50) as load:
        instances[0].kill()
        headway.until(lambda: _instances(repo.app) == 2 and instances[0].pid not in _pids(repo.app))
        time.sleep(1)
    assert load.failures == []


def test_headway_plan_changes_nothing(headway: Headway, repo: Repo) -> None:
    headway.release(repo.path)
    before = headway.ledger.rollouts.by_release(headway.ledger.releases.recent(repo.app)[0].id)
    repo.behave("    return 200, {'new': True}")
    planned = json.loads(headway.run("plan", "production", repo.path, "--json").stdout)
    assert [step["kind"] for step in planned["steps"]][:3] == ["launch", "await_ready", "route"]
    assert headway.ledger.rollouts.by_release(headway.ledger.releases.recent(repo.app)[0].id) == before


def start_and_wait_for_launch(headway: Headway, repo: Repo) -> str:
    run_id = headway.start(repo.path)

    def waits_for_ready() -> bool:
        release = headway.ledger.releases.by_run(run_id)
        rollouts = headway.ledger.rollouts.by_release(release.id) if release else []
        return bool(rollouts) and any("await" in step.title for step in headway.ledger.rollouts.steps(rollouts[0].id))

    headway.until(waits_for_ready)
    return run_id


def _is_back(headway: Headway, repo: Repo, run_id: str, good: str, state: str) -> None:
    headway.until(lambda: not headway.ledger.rollouts.unfinished(repo.app), 90)
    release = headway.until(lambda: (r := headway.ledger.releases.by_run(run_id)) and not r.open and r)
    assert release.state == state
    assert {version(headway.url(repo.app, "staging")) for _ in range(10)} == {good}
    live = headway.ledger.rollouts.live(repo.app, "staging")
    assert live is not None
    assert good.startswith(live.split("-")[0])
    assert headway.run("status", repo.app).stdout.count("held by") == 0


def _stage(headway: Headway, run_id: str, name: str) -> bool:
    release = headway.ledger.releases.by_run(run_id)
    return bool(release) and any(
        stage.name == name for stage in headway.ledger.stages.by_release(release.id if release else "")
    )


def _processes_of(run_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if run_id in (process.environ().get("PREFECT__FLOW_RUN_ID"), *process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _is_instance(process: psutil.Process, app: str, environment: str) -> bool:
    try:
        told = process.environ()
        return (told.get("HEADWAY_APP"), told.get("HEADWAY_ENVIRONMENT")) == (app, environment)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _pids(app: str) -> set[int]:
    return {process.pid for process in psutil.process_iter() if _is_instance(process, app, "production")}


def _instances(app: str) -> int:
    return len(_pids(app))
