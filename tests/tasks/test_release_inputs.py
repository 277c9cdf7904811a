"""A run that is resumed continues the same release, whatever has changed or was lost meanwhile."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.config import Settings, StoredSettings
from headway.domain.errors import BuildFailed, SettingsError, UsageError
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, LaunchSpec, Manifest
from headway.domain.source import Source
from headway.ledger import Ledger, ReleaseRecord
from headway.policy.readiness.checklist import Result
from headway.system import directories
from tasks import build, checkout, checks, previews, readiness, release_record
from tasks.release_record import ReleaseSession
from tests.e2e.conftest import Repo

RUN = "0f3c2a9c-0000-4000-8000-000000000001"
SETTINGS = """
app: {app}
build: {{install: "echo >> {counter}; cat /proc/sys/kernel/random/uuid > built"}}
checks: {{unit: "echo >> {counter}"}}
run: exec python3 app.py
environments:
  staging: {{target: process/staging}}
  production: {{target: process/production, drain: 3s, approval: true, readiness: [runbook]}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", RUN)
    for module in (build, checks, checkout):
        monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("of the run"))

    async def no_run(release: ReleaseRecord) -> None:
        """There is no Prefect server, and so no run to rename."""

    for opening in (release_record, previews):
        monkeypatch.setattr(opening, "rename_run", no_run)
    return tmp_path / "home"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which the commands of the app add a line: outside of their workspace, so they run on the host."""
    monkeypatch.setenv("HEADWAY_RUNNER", "host")
    return tmp_path / "counter"


@pytest.fixture
def repo(tmp_path: Path, counter: Path) -> Repo:
    return Repo(tmp_path / "app", "shop", SETTINGS.replace("{counter}", str(counter)))


class Attempt:
    """One attempt of a run: what the flow `release` does before it waits for an approval."""

    def __init__(self, ledger: Ledger, repo: Repo) -> None:
        self._ledger = ledger
        self._repo = str(repo.path)

    async def begin(self) -> tuple[ReleaseSession, Source, Settings]:
        source = await checkout.checkout.fn(self._repo, "main", self._ledger)
        settings = await checkout.read_settings.fn(source, self._ledger)
        record = await release_record.open_release.fn(self._ledger, source, settings, "ann")
        return ReleaseSession(self._ledger, record), source, settings


@pytest.fixture
def attempt(ledger: Ledger, repo: Repo, home: Path) -> Attempt:
    assert not home.exists()
    return Attempt(ledger, repo)


async def test_a_branch_that_has_moved_does_not_change_the_commit(attempt: Attempt, repo: Repo, home: Path) -> None:
    release, before, settings = await attempt.begin()
    repo.commit("newer", {"headway.yaml": "app: another\n"})
    shutil.rmtree(home)  # another worker, with nothing of the first one
    again, source, same = await attempt.begin()
    assert (again.record.id, again.record.sha) == (release.record.id, before.sha)
    assert (source.sha, source.ref, same) == (before.sha, "main", settings)
    assert (Path(source.workspace) / "app.py").is_file()


async def test_settings_are_read_once(attempt: Attempt) -> None:
    """As after an upgrade that reads the same file in another way."""
    _, source, settings = await attempt.begin()
    (Path(source.workspace) / "headway.yaml").write_text("app: shop\nchecks: {other: 'true'}\n")
    assert (await attempt.begin())[2] == settings


async def test_settings_that_this_version_cannot_read_end_the_release(ledger: Ledger) -> None:
    document = StoredSettings.document(Settings(app="shop"))
    assert StoredSettings.load(document, "shop#1") == Settings(app="shop")
    document["settings"]["gone"] = 1
    with pytest.raises(
        SettingsError, match="shop#1: its settings were stored by another version of Headway: settings/gone"
    ):
        StoredSettings.load(document, "shop#1")


def test_stored_settings_have_the_manifests(tmp_path: Path) -> None:
    settings = Settings(app="shop").with_manifests({"staging": (Manifest(source="a.yaml#1", content={"kind": "A"}),)})
    restored = StoredSettings.load(StoredSettings.document(settings), "shop#1")
    assert restored.manifests_read == settings.manifests_read


async def test_checks_and_build_are_not_repeated(attempt: Attempt, counter: Path) -> None:
    release, source, settings = await attempt.begin()
    report = await checks.run_check.fn(release, source, "unit", settings.checks["unit"])
    built = await build.build.fn(release, source, settings)
    again, source, settings = await attempt.begin()
    assert (await checks.run_check.fn(again, source, "unit", settings.checks["unit"])).passed == report.passed
    assert await build.build.fn(again, source, settings) == built
    assert len(counter.read_text().splitlines()) == 2


async def test_a_bundle_that_is_lost_and_cannot_be_built_again_ends_the_release(attempt: Attempt, home: Path) -> None:
    release, source, settings = await attempt.begin()
    built = await build.build.fn(release, source, settings)
    _remove(home / "bundles")
    again, source, settings = await attempt.begin()
    with pytest.raises(BuildFailed, match=f"shop#1 was built as {built.digest}, which is not on this machine"):
        await build.build.fn(again, source, settings)


async def test_a_bundle_that_is_lost_is_built_again(attempt: Attempt, repo: Repo, home: Path) -> None:
    repo.commit("reproducible", {"headway.yaml": "app: shop\nrun: a\nenvironments: {live: {target: process/live}}\n"})
    release, source, settings = await attempt.begin()
    built = await build.build.fn(release, source, settings)
    (spec,) = release_record.launch_specs(release, settings, built, ["live"])
    _remove(home / "bundles")
    again, source, settings = await attempt.begin()
    elsewhere = (await build.build.fn(again, source, settings)).model_copy(update={"location": "/elsewhere"})
    assert elsewhere.digest == built.digest
    (same,) = release_record.launch_specs(again, settings, elsewhere, ["live"])
    assert same == spec.model_copy(update={"artifact": elsewhere})


async def test_the_configuration_of_an_environment_is_decided_once(attempt: Attempt) -> None:
    release, _, settings = await attempt.begin()
    artifact = Artifact(digest=f"sha256:{'1' * 64}", location="/bundle", size=1)
    before = release_record.launch_specs(release, settings, artifact, ["staging", "production"])
    changed = settings.model_copy(update={"run": "another command"})
    assert release_record.launch_specs(release, changed, artifact, ["staging", "production"]) == before


async def test_the_readiness_that_was_shown_for_approval_stays(attempt: Attempt) -> None:
    release, source, settings = await attempt.begin()
    artifact = Artifact(digest=f"sha256:{'1' * 64}", location="/bundle", size=1)
    (spec,) = release_record.launch_specs(release, settings, artifact, ["production"])
    shown = [Result("runbook", "unknown", "nobody", required=True)]
    release.ledger.inputs.fix(release.record.id, "readiness production", {"results": shown})
    assert await readiness.readiness.fn(release, source, settings, spec) == shown


async def test_another_revision_in_the_same_environment_is_not_done(attempt: Attempt) -> None:
    release, _, settings = await attempt.begin()
    specs = [_spec(settings, digit) for digit in "12"]
    first, second = (spec.revision("shop", release.record.sha or "") for spec in specs)
    ledger, record = release.ledger, release.record
    lock = ledger.locks.acquire("shop", "staging", holder=record.name, revision=first.id, lease=30)
    assert lock
    plan = Plan(strategy="rolling", old=None, new=first.id, steps=())
    rollout = ledger.rollouts.start(record.id, "shop", "staging", plan, kind="release", reason="", token=lock.token)
    ledger.rollouts.finish(rollout.id, "done")
    assert release_record.undelivered(release, specs[0]) is None
    assert release_record.undelivered(release, specs[1]) == second


async def test_a_release_that_has_ended_is_not_continued(attempt: Attempt) -> None:
    """As "Retry" in the Prefect UI does it with a run that has failed."""
    release, _, _ = await attempt.begin()
    release.ledger.releases.finish(release.record.id, "failed", "the unit tests")
    with pytest.raises(UsageError, match="shop#1 failed: the unit tests: it has ended"):
        await attempt.begin()


async def test_a_pull_request_that_is_retargeted_does_not_change_its_release(
    ledger: Ledger, repo: Repo, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("checkout", "read_settings"):
        monkeypatch.setattr(previews, name, getattr(checkout, name).fn)
    ledger.apps.register("shop", repo=str(repo.path), host="gitea", secret="s", by="ann")  # a name
    sha = repo.git("rev-parse", "HEAD")
    pull = await previews.pull_request.fn(ledger, "shop", 1, sha, "main", fork=True)
    source = await checkout.look.fn(pull.repo, pull.sha)
    release = ReleaseSession(ledger, await previews.open_preview.fn(ledger, pull, source, "ann"))
    settings = await previews.base_settings(release, pull)

    repo.commit("the base moves", {"headway.yaml": "app: shop\nchecks: {other: 'true'}\n"})
    shutil.rmtree(home)
    assert await previews.pull_request.fn(ledger, "shop", 1, sha, "another", fork=False) == pull
    assert await previews.base_settings(release, pull) == settings


def _spec(settings: Settings, digit: str) -> LaunchSpec:
    return settings.launch_spec("staging", Artifact(digest=f"sha256:{digit * 64}", location="/bundle", size=1))


def _remove(bundles: Path) -> None:
    directories.remove(bundles)
