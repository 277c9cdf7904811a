"""Teardown of previews, with a real ledger and targets in memory; no Prefect server runs the flow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks import loading
from flows import teardown as flow
from headway.domain.errors import NotFound, Superseded
from headway.domain.events import NOTHING
from headway.domain.plan import Plan
from headway.domain.ports import GitHost, Target
from headway.domain.revision import Artifact, LaunchSpec
from headway.ledger import Delivery, Ledger
from headway.scm.webhooks import PullRequestEvent
from headway.testing import FakeGitHost, FakeTarget
from tasks import environment_lock, previews, rollout_steps

NAME = "shop-pr-42"
SHA, OTHER = "a" * 40, "b" * 40


class Place:
    """The ledger and the targets. Each teardown has its own id."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.targets = {"process/a": FakeTarget(), "process/b": FakeTarget()}
        self.host = FakeGitHost()
        ledger.apps.register("shop", repo="/srv/shop", host="gitea", secret="s", reports="gitea/e2e", by="ann")

    async def target(self, slug: str) -> Target:
        if slug not in self.targets:
            raise NotFound(f"there is no target {slug}")
        return self.targets[slug]

    async def git_host(self, _: str) -> GitHost:
        return self.host

    def meant_for(self, target: str, sha: str = SHA) -> LaunchSpec:
        """Record a release that chose its target and got no further."""
        spec = LaunchSpec(
            target=target,
            environment="preview",
            run="serve",
            artifact=Artifact(kind="bundle", digest=f"sha256:{sha}{'0' * 24}", location="/bundle", size=1),
        )
        self.ledger.revisions.save(spec.revision(NAME, sha), spec)
        return spec

    def brought_to(self, target: str, sha: str = SHA) -> None:
        spec = self.meant_for(target, sha)
        revision = spec.revision(NAME, sha)
        lock = self.ledger.locks.acquire(NAME, "preview", holder="x", revision=revision.id, lease=30)
        assert lock
        plan = Plan(strategy="recreate", new=revision.id, old="", steps=())
        made = self.ledger.rollouts.start(None, NAME, "preview", plan, kind="release", reason="", token=lock.token)
        self.ledger.rollouts.finish(made.id, "done")
        self.ledger.locks.release(lock)
        if target in self.targets:
            self.targets[target].launch(revision, spec)

    def hears(self, sha: str, run: str) -> None:
        """Record a processed delivery and its started run."""
        event = PullRequestEvent(places=(), number=42, open=True, head=SHA, ref="r", base="main", fork=False, by="")
        self.ledger.deliveries.receive([Delivery(app="shop", delivery=f"guid of {run}", event=event)])
        (newest,) = self.ledger.deliveries.recent("shop", 1)
        assert self.ledger.deliveries.claim_start([newest.id], newest.id, "shop", "#42", sha, again=True)
        self.ledger.deliveries.mark_started(newest.id, run)

    @property
    def running(self) -> set[str]:
        return {slug for slug, target in self.targets.items() if target.observe(NAME).instances}

    @property
    def active(self) -> bool:
        known = self.ledger.previews.get(NAME)
        return known is not None and known.active


TAKE_STEP = rollout_steps.take_step


class Step:
    """The task that takes a step, as a plain function."""

    def with_options(self, *, task_run_name: str) -> Any:
        return TAKE_STEP.fn


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        made = Place(ledger)
        monkeypatch.setenv("HEADWAY_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
        for module in (environment_lock, previews, rollout_steps, flow):
            monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("test"))
        for name in ("plan_teardown", "forget"):
            monkeypatch.setattr(flow, name, getattr(flow, name).fn)
        monkeypatch.setattr(rollout_steps, "take_step", Step())
        monkeypatch.setattr(loading, "load_target", made.target)
        monkeypatch.setattr(loading, "load_git_host", made.git_host)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the teardown")
        monkeypatch.setattr("prefect.runtime.flow_run.get_root_flow_run_id", lambda: "the teardown")
        ledger.previews.open(NAME, of="shop", number=42, head=SHA, fork=False)
        yield made


async def test_teardown_clears_every_target_of_the_preview(place: Place) -> None:
    place.brought_to("process/a")
    place.brought_to("process/b", OTHER)
    await flow.teardown.fn("shop", 42)
    assert (place.running, place.active) == (set(), False)


async def test_failed_deploy_to_a_missing_target_does_not_block_a_teardown(place: Place) -> None:
    """Its headway.yaml named a target that does not exist."""
    place.meant_for("process/aaa", OTHER)
    place.brought_to("process/b")
    await flow.teardown.fn("shop", 42)
    assert (place.running, place.active) == (set(), False)


async def test_failing_target_does_not_block_others_and_is_reported(place: Place) -> None:
    place.brought_to("process/a", OTHER)
    place.brought_to("process/b")
    gone = place.targets.pop("process/a")
    with pytest.raises(NotFound, match="no target process/a"):
        await flow.teardown.fn("shop", 42)
    assert (place.running, place.active) == (set(), True)
    place.targets["process/a"] = gone
    await flow.teardown.fn("shop", 42)
    assert (place.running, place.active) == (set(), False)


async def test_late_teardown_keeps_a_reopened_preview(place: Place) -> None:
    place.brought_to("process/a")
    place.hears(NOTHING, "the teardown")
    place.hears(SHA, "the preview")
    await flow.teardown.fn("shop", 42)
    assert (place.running, place.active) == ({"process/a"}, True)


async def test_teardown_keeps_a_preview_updated_since_the_decision(place: Place) -> None:
    place.brought_to("process/a")
    known = place.ledger.previews.get(NAME)
    assert known
    await flow.teardown.fn("shop", 42, seen=known.updated_at - timedelta(microseconds=1))
    assert (place.running, place.active) == ({"process/a"}, True)
    await flow.teardown.fn("shop", 42, seen=known.updated_at)
    assert (place.running, place.active) == (set(), False)


async def test_newer_commit_without_a_preview_does_not_block_an_older_one(place: Place) -> None:
    pull = previews.Pull(app="shop", name=NAME, number=42, repo="/srv/shop", sha=SHA, base="main", fork=False)
    place.host.has_pull(42, OTHER)
    await previews.require_open.fn(place.ledger, pull)
    place.host.has_pull(42, SHA, open=False)
    with pytest.raises(Superseded, match="#42 was closed"):
        await previews.require_open.fn(place.ledger, pull)
