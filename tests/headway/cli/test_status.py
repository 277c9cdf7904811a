"""`headway status`, `watch` and `plan` from the ledger alone: no Prefect server runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headway.cli.main import app
from headway.cli.output import output
from headway.domain.plan import Plan, Route
from headway.domain.revision import Artifact, LaunchSpec
from headway.domain.traffic import Traffic
from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.release_inputs import SETTINGS as INPUT
from headway.system.paths import ledger_url
from tests.standins.repositories import Repository

ARTIFACT = Artifact(digest="sha256:" + "a" * 64, location="/", size=1)
URL = "http://127.0.0.1:8100"
SETTINGS = """
app: shop
run: serve
environments:
  staging: {target: process/staging}
  production: {target: process/production, instances: 2}
"""


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(output, "json", False)
    with Ledger.open(ledger_url()) as opened:
        yield opened


def started(ledger: Ledger, subject: str, sha: str = "a" * 40) -> ReleaseRecord:
    release = ledger.releases.start("shop", "/shop", "main", flow_run_id=None, requested_by="ann")
    author = "Ann Developer <ann@example.com>"
    document: dict[str, Any] = {"settings": {"environments": {"staging": {}, "production": {}, "preview": {}}}}
    ledger.inputs.fix(release.id, INPUT, document)
    return ledger.releases.update(release.id, sha=sha, subject=subject, author=author)


def live(ledger: Ledger, release: ReleaseRecord, environment: str, instances: int = 1) -> str:
    """Make a release live; returns the id of its revision."""
    spec = LaunchSpec(
        environment=environment,
        target=f"process/{environment}",
        artifact=ARTIFACT,
        release=release.name,
        instances=instances,
    )
    assert release.sha is not None
    revision = spec.revision("shop", release.sha)
    ledger.revisions.save(revision, spec)
    lock = ledger.locks.acquire("shop", environment, holder=release.name, revision=revision.id, lease=60)
    assert lock is not None
    plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
    rollout = ledger.rollouts.start(release.id, "shop", environment, plan, kind="release", reason="", token=lock.token)
    ledger.rollouts.set_url(rollout.id, URL)
    ledger.rollouts.finish(rollout.id, "done")
    ledger.locks.release(lock)
    return revision.id


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def test_a_row_says_what_is_live_since_when_by_whom_and_where(ledger: Ledger) -> None:
    release = started(ledger, "Faster quotes, and a subject that is too long to be shown here")
    revision = live(ledger, release, "staging")
    ledger.releases.finish(release.id, "succeeded", "")

    heads, staging, production = run("status").splitlines()

    assert heads.split() == ["APP", "ENVIRONMENT", "RELEASE", "REVISION", "AGE", "AUTHOR", "SUBJECT", "URL"]
    assert staging.split()[:4] == ["shop", "staging", "#1", revision]
    assert "Ann Developer  Faster quotes, and a subject that is" in staging
    assert staging.endswith(URL)
    assert production.split() == ["shop", "production", "not", "reached", "yet"]


def test_status_says_when_several_versions_serve(ledger: Ledger) -> None:
    first = live(ledger, started(ledger, "Faster quotes"), "staging")
    lock = ledger.locks.acquire("shop", "staging", holder="test", revision="new", lease=60)
    assert lock is not None
    traffic = Traffic(weights={first: 50, "2222222-bbbbbb": 50})
    plan = Plan(strategy="canary", new="2222222-bbbbbb", old=first, steps=(Route(traffic=traffic),))
    rollout = ledger.rollouts.start(None, "shop", "staging", plan, kind="release", reason="", token=lock.token)
    ledger.rollouts.start_step(rollout, 0, plan.steps[0], lock.token)
    assert "several versions serve" not in run("status")
    ledger.rollouts.finish_step(rollout, 0, "done", "", None, lock.token)
    assert f"shop staging: several versions serve: {first} 50 %, 2222222-bbbbbb 50 %" in run("status")
    ledger.rollouts.finish(rollout.id, "rolled_back")
    assert "several versions serve" not in run("status")


def test_the_columns_are_in_the_document_too(ledger: Ledger) -> None:
    release = started(ledger, "Faster quotes")
    revision = live(ledger, release, "staging")

    (found,) = json.loads(run("status", "--json"))

    staging, production = found["environments"]
    assert staging | {"since": None} == {
        "environment": "staging",
        "reached": True,
        "live": revision,
        "split": None,
        "held_by": None,
        "release": "shop#1",
        "subject": "Faster quotes",
        "author": "Ann Developer",
        "since": None,
        "url": URL,
    }
    assert (production["reached"], production["live"], production["url"]) == (False, None, None)


def test_after_a_rollback_the_release_is_that_of_the_older_revision(ledger: Ledger) -> None:
    first, second = started(ledger, "First"), started(ledger, "Second", "b" * 40)
    old = live(ledger, first, "production")
    live(ledger, second, "production")
    lock = ledger.locks.acquire("shop", "production", holder="ann", revision=old, lease=60)
    assert lock is not None
    plan = Plan(strategy="rollback", new=old, old=None, steps=())
    back = ledger.rollouts.start(None, "shop", "production", plan, kind="rollback", reason="", token=lock.token)
    ledger.rollouts.finish(back.id, "done")

    rows = run("status").splitlines()

    assert next(row.split()[:4] for row in rows if "production" in row) == ["shop", "production", "#1", old]


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("rolled_back", 1), ("cancelled", 1)])
def test_watching_a_release_that_has_ended_says_how(ledger: Ledger, state: str, code: int) -> None:
    release = started(ledger, "Faster quotes")
    live(ledger, release, "staging")
    ledger.stages.start(release.id, "unit")
    ledger.stages.finish(release.id, "unit", "passed", "12 tests")
    ledger.releases.finish(release.id, state, "" if state == "succeeded" else "p99 is too long")  # type: ignore[arg-type]

    said = run("watch", "shop#1", code=code).splitlines()

    if code:
        assert said[-2].endswith("p99 is too long")
    else:
        assert said[-1] == f"staging: {URL}"
    document = json.loads(run("watch", "shop#1", "--json", code=code))
    assert (document["state"], document["exit_code"], document["urls"]) == (state, code, {"staging": URL})


def test_a_cancelled_release_keeps_the_reason_of_who_asked_for_it(ledger: Ledger) -> None:
    asked, died, failed = (started(ledger, "x") for _ in range(3))
    for one in (asked, failed):
        ledger.releases.update(one.id, reason="cancelled by ann: wrong branch")
    assert ledger.releases.finish(asked.id, "cancelled", "cancelled").reason == "cancelled by ann: wrong branch"
    assert ledger.releases.finish(died.id, "cancelled", "its process ended").reason == "its process ended"
    assert ledger.releases.finish(failed.id, "failed", "unit failed").reason == "unit failed"


def command(*arguments: str | Path, code: int) -> subprocess.CompletedProcess[str]:
    """The program, for what imports Prefect or scans with several processes."""
    program = [str(Path(sys.executable).with_name("headway")), *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_plan_needs_no_server(ledger: Ledger, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS)
    old = live(ledger, started(ledger, "First"), "production", instances=2)

    said = command("plan", "production", repository.path, code=0).stdout.splitlines()

    assert said[0].startswith(f"rolling: {old} -> ")
    assert sum("launch" in line for line in said) == 2
    assert f"retire {old}" in said[-2]
    assert said[-1].startswith("note: no Prefect server answers")


def test_differences_with_the_platform_need_the_server(ledger: Ledger, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS)
    assert "needs the Prefect server" in command("plan", "production", repository.path, "--diff", code=2).stderr


def test_an_untracked_file_is_named_and_an_untracked_headway_yaml_is_an_error(ledger: Ledger, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    repository.commit(headway_dot_yaml=SETTINGS)
    repository.write(notes_dot_txt="x")
    warning = "warning: untracked files are not in the commit: notes.txt"
    assert warning in command("check", repository.path, code=0).stderr
    assert warning in command("release", repository.path, code=2).stderr  # no service runs

    repository.git("rm", "--quiet", "--cached", "headway.yaml")
    repository.git("commit", "--quiet", "--message", "without it")
    for name in ("check", "release"):
        assert "headway.yaml is not committed" in command(name, repository.path, code=2).stderr


def test_an_app_is_not_deleted_without_a_confirmation_or_during_a_release(ledger: Ledger) -> None:
    release = started(ledger, "Faster quotes")
    live(ledger, release, "staging")
    said = command("app", "delete", "shop", "--yes", code=2).stderr
    assert "shop#1 is in progress" in said
    assert "headway cancel shop#1" in said
    ledger.releases.finish(release.id, "succeeded", "")
    asked = command("app", "delete", "shop", code=2)
    assert "shop will be deleted, with:" in asked.stdout
    assert "shop was not deleted" in asked.stderr
    assert "never released to production" in command("app", "delete", "shop", "--env", "production", code=2).stderr
    assert ledger.releases.apps() == ["shop"]
