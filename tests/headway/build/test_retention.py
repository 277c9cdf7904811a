from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.build import bundles, retention
from headway.domain.plan import Plan
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import Ledger, ReleaseRecord
from headway.scm import git
from headway.system.runners.host import HostRunner
from tests.standins.repositories import Repository

OLD = time.time() - retention.KEEP - 60


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def build(home: Path, repo: Repository, run: str, content: str) -> Artifact:
    repo.commit(run, file=content)
    checked_out = git.checkout(str(repo.path), "main", home / "workspaces", run)
    store = home / "bundles"
    artifact = asyncio.run(bundles.build(checked_out, None, runner=HostRunner(), store=store, on_line=print))
    for path in (*home.glob("workspaces/*/*"), *store.glob("trees/*"), *store.glob("sha256/*")):
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    return artifact


def release(ledger: Ledger, run: str, artifact: Artifact) -> ReleaseRecord:
    started = ledger.releases.start("shop", "/repo", "main", flow_run_id=run, requested_by="ann")
    return ledger.releases.update(started.id, digest=artifact.digest)


def test_live_and_running_releases_keep_their_artifacts(tmp_path: Path, ledger: Ledger) -> None:
    home = tmp_path / "home"
    repo = Repository(tmp_path / "repo")
    forgotten, live, going = (build(home, repo, f"run-{name}", name) for name in ("forgotten", "live", "going"))
    for run, artifact in (("run-forgotten", forgotten), ("run-live", live)):
        ledger.releases.finish(release(ledger, run, artifact).id, "succeeded", "")
    release(ledger, "run-going", going)
    spec = LaunchSpec(environment="staging", artifact=live, run="true")
    revision = spec.revision("shop", "1" * 40)
    ledger.revisions.save(revision, spec)
    lock = ledger.locks.acquire("shop", "staging", holder="x", revision=revision.id, lease=30)
    assert lock is not None
    plan = Plan(strategy="rolling", new=revision.id, old=None, steps=())
    done = ledger.rollouts.start(None, "shop", "staging", plan, kind="release", reason="", token=lock.token)
    ledger.rollouts.finish(done.id, "done")

    gone = retention.prune(home, ledger)

    assert forgotten.digest in gone
    assert {Path(artifact.location).exists() for artifact in (live, going)} == {True}
    assert not Path(forgotten.location).exists()
    left = {path.name.partition("-")[2] for path in home.glob("workspaces/*/*-run-*")}
    assert left == {"run-going"}
    assert retention.prune(home, ledger) == []


def test_bundle_of_an_active_preview_is_kept(tmp_path: Path, ledger: Ledger) -> None:
    home = tmp_path / "home"
    repo = Repository(tmp_path / "repo")
    bundle = build(home, repo, "run-1", "shown")
    ledger.previews.open("shop-pr-42", of="shop", number=42, head="1" * 40, fork=False)
    spec = LaunchSpec(environment="preview", artifact=bundle, run="true")
    revision = spec.revision("shop-pr-42", "1" * 40)
    ledger.revisions.save(revision, spec)
    lock = ledger.locks.acquire("shop-pr-42", "preview", holder="x", revision=revision.id, lease=30)
    assert lock is not None
    for new in (revision.id, ""):
        plan = Plan(strategy="rolling", new=new, old=None, steps=())
        done = ledger.rollouts.start(None, "shop-pr-42", "preview", plan, kind="release", reason="", token=lock.token)
        ledger.rollouts.finish(done.id, "done")
        assert bundle.digest not in retention.prune(home, ledger)

    ledger.previews.close("shop-pr-42", "the pull request was closed")

    assert bundle.digest in retention.prune(home, ledger)


def test_outputs_of_commands_go_after_a_week(tmp_path: Path, ledger: Ledger) -> None:
    for release, modified in (("old", OLD), ("new", None)):
        file = tmp_path / "output" / release / "unit.log"
        file.parent.mkdir(parents=True)
        file.write_text("passed\n")
        if modified:
            os.utime(file, (modified, modified))
            os.utime(file.parent, (modified, modified))
    assert retention.prune(tmp_path, ledger) == [str(tmp_path / "output" / "old")]
    assert (tmp_path / "output" / "new" / "unit.log").read_text() == "passed\n"
