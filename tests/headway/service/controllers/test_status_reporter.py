"""Statuses that git hosts get from a real ledger, also when a host fails."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headway.domain.errors import GitHostError, NotFound
from headway.domain.git import CommitStatus, DeploymentStatus, StatusState
from headway.domain.ports import GitHost, Target
from headway.ledger import Ledger, ReleaseRecord, StageState
from headway.ledger.stages import ALL_CHECKS
from headway.service.controllers.status_reporter import StatusReporter
from headway.service.prefect.client import Control
from headway.testing import FakeGitHost

SHA = "a" * 40


class Place:
    """An app with a git host that gets its statuses, and a release of the app."""

    def __init__(self, tmp_path: Path) -> None:
        self.ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
        self.host = FakeGitHost()
        self.reporter = StatusReporter(self.ledger, Control("http://prefect/api"), self._host, self._target)
        repo = "https://github.com/acme/shop"
        self.ledger.apps.register("shop", repo=repo, host="github", secret="s", reports="github/acme", by="ann")
        self.release = self.started("shop")

    def started(self, app: str) -> ReleaseRecord:
        made = self.ledger.releases.start(app, "/repo", "main", flow_run_id=f"run of {app}", requested_by="ann")
        return self.ledger.releases.update(made.id, sha=SHA)

    def shown(self, number: int = 42) -> ReleaseRecord:
        """A preview, and a run for it."""
        name = f"shop-pr-{number}"
        self.ledger.previews.open(name, of="shop", number=number, head=SHA, fork=False)
        run = f"run {len(self.ledger.releases.recent(name)) + 1} of {name}"
        made = self.ledger.releases.start(name, "/repo", SHA, flow_run_id=run, requested_by="bob", preview=True)
        return self.ledger.releases.update(made.id, sha=SHA)

    def stage(self, release: ReleaseRecord, name: str, state: StageState = "passed") -> None:
        self.ledger.stages.start(release.id, name)
        self.ledger.stages.finish(release.id, name, state, "")

    async def _host(self, slug: str) -> GitHost:
        assert slug == "github/acme"
        return self.host

    async def _target(self, slug: str) -> Target:
        raise NotFound(f"no target {slug}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.ledger.close()


async def test_every_stage_and_the_release_have_a_status(place: Place) -> None:
    place.ledger.stages.start(place.release.id, "unit")
    await place.reporter.reconcile()
    url = "http://prefect/runs/flow-run/run of shop"
    assert place.host.mark(SHA, "headway/unit") == (StatusState.RUNNING, "running", url)
    assert place.host.mark(SHA, "headway") == (StatusState.RUNNING, "shop#1 running", url)

    place.ledger.stages.finish(place.release.id, "unit", "failed", "1 of 3 tests\nfailed " + "x" * 200)
    place.ledger.releases.finish(place.release.id, "failed", "unit: 1 of 3 tests failed")
    await place.reporter.reconcile()

    standing, words, _ = place.host.mark(SHA, "headway/unit")
    assert (standing, len(words)) == (StatusState.FAILURE, 140)
    assert words.startswith("1 of 3 tests failed xxx")
    assert place.host.mark(SHA, "headway")[:2] == (StatusState.FAILURE, "shop#1 failed: unit: 1 of 3 tests failed")


async def test_reported_status_is_not_reported_again(place: Place) -> None:
    place.ledger.stages.start(place.release.id, "unit")
    for _ in range(3):
        await place.reporter.reconcile()
    assert len(place.host.told) == 2
    place.ledger.releases.finish(place.release.id, "superseded", "superseded by shop#2")
    for _ in range(3):
        await place.reporter.reconcile()
    assert [one.state for one in place.host.told[2:]] == [StatusState.ENDED, StatusState.ENDED]
    assert place.ledger.statuses.releases_to_report(["shop"]) == []


async def test_new_reporter_continues_from_the_reported_statuses(place: Place) -> None:
    await place.reporter.reconcile()
    other = StatusReporter(place.ledger, Control("http://prefect/api"), place._host, place._target)
    await other.reconcile()
    assert len(place.host.told) == 1


async def test_failing_host_is_retried_after_a_backoff(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    place.host.faults = [GitHostError("it does not answer"), GitHostError("its rate limit is used up", after=300.0)]
    assert await place.reporter.reconcile() == ["github/acme: it does not answer"]
    assert await place.reporter.reconcile() == ["github/acme: it does not answer"]
    assert len(place.host.faults) == 1
    now += 10.5
    assert await place.reporter.reconcile() == ["github/acme: its rate limit is used up"]
    now += 299
    await place.reporter.reconcile()
    assert place.host.told == []
    now += 2
    assert await place.reporter.reconcile() == []
    assert len(place.host.told) == 1


async def test_app_without_a_git_host_reports_nothing(place: Place) -> None:
    place.ledger.apps.register("other", repo="/srv/git/other", host="generic", secret="s", by="ann")
    place.started("other")
    await place.reporter.reconcile()
    assert {one.description for one in place.host.told} == {"shop#1 running"}


async def test_environment_is_reported_as_a_deployment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.ledger.rollouts, "environments", lambda _app: ["staging", "production"])
    for name, state in (("staging", "passed"), ("production", "running")):
        place.ledger.stages.start(place.release.id, name)
        if state == "passed":
            place.ledger.stages.finish(place.release.id, name, "passed", "r1")
    await place.reporter.reconcile()
    told = [(one.environment, one.state) for one in place.host.told if isinstance(one, DeploymentStatus)]
    assert told == [("staging", StatusState.SUCCESS), ("production", StatusState.RUNNING)]


# --- previews --------------------------------------------------------------------------------------------------


async def test_preview_and_release_of_one_commit_have_separate_statuses(place: Place) -> None:
    preview = place.shown()
    for release in (preview, place.release):
        place.stage(release, "unit", "failed" if release is preview else "passed")
    await place.reporter.reconcile()
    assert place.host.mark(SHA, "headway/preview")[:2] == (StatusState.RUNNING, "shop-pr-42#1 running")
    assert place.host.mark(SHA, "headway/preview/unit")[0] == StatusState.FAILURE
    assert place.host.mark(SHA, "headway/unit")[0] == StatusState.SUCCESS
    assert place.host.mark(SHA, "headway")[1] == "shop#1 running"


async def test_pull_request_has_one_comment_updated_until_the_teardown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.ledger.rollouts, "environments", lambda _app: ["preview"])
    release = place.shown()
    place.stage(release, "preview")
    await place.reporter.reconcile()
    assert "in progress" in place.host.texts(42)[0]
    place.ledger.previews.mark_deployed("shop-pr-42", "http://here", None)
    place.ledger.releases.finish(release.id, "succeeded", "")
    await place.reporter.reconcile()
    (text,) = place.host.texts(42)
    assert "**: http://here" in text
    assert "(http://prefect/runs/flow-run/run 1 of shop-pr-42)" in text
    place.ledger.previews.close("shop-pr-42", "the pull request was closed")
    for _ in range(2):
        await place.reporter.reconcile()
    (text,) = place.host.texts(42)
    assert "torn down, the pull request was closed" in text
    told = [(one.environment, one.state) for one in place.host.told if isinstance(one, DeploymentStatus)]
    assert told == [("shop-pr-42", StatusState.SUCCESS), ("shop-pr-42", StatusState.ENDED)]
    assert place.ledger.previews.unreported(["shop"]) == []


async def test_deployment_of_an_earlier_commit_becomes_inactive_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.ledger.rollouts, "environments", lambda _app: ["preview"])
    deployed = place.shown()
    place.stage(deployed, "preview")
    place.ledger.releases.finish(deployed.id, "succeeded", "")
    await place.reporter.reconcile()
    newer = place.shown()
    place.stage(newer, "unit", "failed")
    place.ledger.releases.finish(newer.id, "failed", "unit: failed")
    await place.reporter.reconcile()
    place.ledger.previews.close("shop-pr-42", "the pull request was closed")
    await place.reporter.reconcile()
    told = [one.state for one in place.host.told if isinstance(one, DeploymentStatus)]
    assert told == [StatusState.SUCCESS, StatusState.ENDED]


def test_deployment_recorded_by_0_1_0_is_read() -> None:
    stored = {
        "sha": SHA,
        "environment": "shop-pr-42",
        "standing": "success",
        "description": "",
        "log_url": "",
        "url": None,
    }
    assert DeploymentStatus.model_validate(stored).state is StatusState.SUCCESS


async def test_late_status_of_an_older_commit_does_not_overwrite_the_comment(place: Place) -> None:
    older = place.shown()
    newer = place.shown()
    place.ledger.releases.finish(newer.id, "succeeded", "")
    await place.reporter.reconcile()
    place.ledger.releases.finish(older.id, "superseded", "superseded by shop-pr-42#2")
    await place.reporter.reconcile()
    (text,) = place.host.texts(42)
    assert "shop-pr-42#2 succeeded" in text


async def test_change_during_a_round_is_reported_in_its_final_state(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = place.shown()
    asked = place.ledger.statuses.releases_to_report

    def meanwhile(apps: Sequence[str]) -> list[ReleaseRecord]:
        place.ledger.previews.mark_deployed("shop-pr-42", "http://here", None)
        place.ledger.releases.finish(release.id, "succeeded", "")
        return asked(apps)

    monkeypatch.setattr(place.ledger.statuses, "releases_to_report", meanwhile)
    await place.reporter.reconcile()
    assert place.ledger.statuses.by_release(release.id)[""] == ""  # its reports are complete
    assert "http://here" in place.host.texts(42)[0]


async def test_two_pull_requests_have_a_comment_each(place: Place) -> None:
    place.shown(42)
    place.shown(43)
    await place.reporter.reconcile()
    (one,), (other,) = place.host.texts(42), place.host.texts(43)
    assert one.splitlines()[0] != other.splitlines()[0]  # the marker cannot be guessed
    assert other.splitlines()[0].startswith("<!-- headway ")


async def test_refused_status_of_a_fork_does_not_block_other_statuses(place: Place) -> None:
    """GitLab refuses a status for a commit that is on none of its branches."""
    place.shown()
    place.ledger.releases.finish(place.release.id, "succeeded", "")
    place.ledger.releases.update(place.release.id, sha="b" * 40)
    real = place.host.set_status

    def refusing(repo: str, status: CommitStatus) -> None:
        if status.sha == SHA:
            raise GitHostError("answers 404", refused=True)
        real(repo, status)

    place.host.set_status = refusing  # type: ignore[method-assign]  # of this one
    assert await place.reporter.reconcile() == ["shop-pr-42: answers 404"]
    assert "in progress" in place.host.texts(42)[0]
    assert place.host.mark("b" * 40, "headway")[0] == StatusState.SUCCESS


async def test_refused_comment_does_not_lose_the_other_statuses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    place.ledger.releases.finish(place.release.id, "succeeded", "")
    await place.reporter.reconcile()
    release = place.shown()
    place.ledger.releases.finish(release.id, "failed", "unit: failed")
    place.host.faults = [None, GitHostError("answers 403")]
    assert await place.reporter.reconcile() == ["github/acme: answers 403"]
    now += 11
    assert await place.reporter.reconcile() == []
    assert "unit: failed" in place.host.texts(42)[0]


async def test_one_name_says_of_pull_requests_and_merge_groups_whether_the_checks_pass(place: Place) -> None:
    pull = place.shown()
    queued = place.ledger.releases.update(place.started("shop.queue").id, sha="b" * 40)
    await place.reporter.reconcile()
    for release in (pull, queued):
        assert place.host.mark(release.sha or "", "headway/checks")[0] is StatusState.RUNNING
        place.ledger.stages.start(release.id, "build")  # a check may be called so
        place.stage(release, ALL_CHECKS)
    await place.reporter.reconcile()
    for release in (pull, queued):
        assert place.host.mark(release.sha or "", "headway/checks")[:2] == (StatusState.SUCCESS, "all checks passed")
    place.ledger.releases.finish(pull.id, "failed", "preview: not ready")
    place.ledger.releases.finish(queued.id, "succeeded", "")
    await place.reporter.reconcile()
    assert place.host.mark(SHA, "headway/checks")[0] is StatusState.SUCCESS
    assert place.host.mark(SHA, "headway/preview")[0] is StatusState.FAILURE
    assert place.host.mark("b" * 40, "headway/queue")[0] is StatusState.SUCCESS
    assert {one.context for one in place.host.told if isinstance(one, CommitStatus) and one.sha == "b" * 40} == {
        "headway/queue",
        "headway/queue/build",
        "headway/checks",
    }


@pytest.mark.parametrize("stage", [True, False])
async def test_a_commit_that_fails_before_or_in_its_checks_is_reported_under_the_required_name(
    place: Place, stage: bool
) -> None:
    queued = place.ledger.releases.update(place.started("shop.queue").id, sha="b" * 40)
    if stage:
        place.stage(queued, ALL_CHECKS, "failed")
    place.ledger.releases.finish(queued.id, "failed", "headway.yaml: unknown key")
    await place.reporter.reconcile()
    assert place.host.mark("b" * 40, "headway/checks")[0] is StatusState.FAILURE
