"""Nightly releases, and pushes whose webhook was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headway.domain.errors import SettingsError
from headway.domain.freeze_windows import Closed
from headway.ledger import Ledger, ReleaseRecord, ReleaseState
from headway.policy.nightly import NightlyResult, nightly_markdown, nightly_refusal
from headway.scm.branch_head import head_of
from headway.service.controllers.branch_poller import BranchPoller
from tests.standins.repositories import Repository

HEAD, OLD = "a" * 40, "b" * 40
CLOSED = Closed(why="Fri 16:00 - Mon 08:00 UTC", until=datetime(2026, 1, 5, 8, tzinfo=UTC))
SETTINGS = "app: shop\nrun: serve\nenvironments:\n  production: {target: process/production}\n"


def release(state: ReleaseState, reason: str = "") -> ReleaseRecord:
    return ReleaseRecord(
        id="1",
        app="shop",
        number=7,
        repo="/repo",
        ref="main",
        flow_run_id=None,
        requested_by="ann",
        state=state,
        reason=reason,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("live", "before", "closed", "override", "why"),
    [
        (OLD, None, None, "", ""),
        (None, None, None, "", ""),
        (HEAD, None, None, "", "it is live"),
        (HEAD, release("succeeded"), CLOSED, "", "it is live"),
        (OLD, release("running"), None, "", "shop#7 is in progress"),
        (OLD, release("waiting"), None, "urgent", "shop#7 is in progress"),
        (OLD, release("failed", "unit: 1 of 3 tests failed"), None, "", "shop#7 failed: unit: 1 of 3 tests failed"),
        (OLD, release("rolled_back", "canary failed"), None, "", "shop#7 rolled back: canary failed"),
        (OLD, release("rejected", "production: by bob"), None, "", "shop#7 rejected: production: by bob"),
        (OLD, release("superseded", "by shop#8"), None, "", ""),
        (OLD, release("cancelled"), None, "", ""),
        (OLD, release("expired"), None, "", ""),
        (OLD, None, CLOSED, "", "frozen until Mon 2026-01-05 08:00 UTC: Fri 16:00 - Mon 08:00 UTC"),
        (OLD, None, CLOSED, "the fix cannot wait", ""),
        (OLD, release("failed", "tests"), CLOSED, "the fix cannot wait", "shop#7 failed: tests"),
    ],
)
def test_reasons_not_to_release(
    live: str | None, before: ReleaseRecord | None, closed: Closed | None, override: str, why: str
) -> None:
    assert str(nightly_refusal(HEAD, live, before, closed, override) or "") == why


def test_summary_lists_released_and_skipped_apps() -> None:
    nights = [
        NightlyResult(app="shop", outcome="released", sha=HEAD, why="shop#8 succeeded"),
        NightlyResult(app="bank", outcome="not released", sha=OLD, why="bank#2 failed: a | b\nc"),
    ]
    text = nightly_markdown(nights, "the fix | cannot wait", "ann")
    assert "Freezes overridden by ann: the fix \\| cannot wait" in text
    assert "| shop | `aaaaaaa` | released | shop#8 succeeded |" in text
    assert "| bank | `bbbbbbb` | not released | bank#2 failed: a \\| b c |" in text
    assert "No app is registered" in nightly_markdown([], "", "nightly")


# --- the head of a branch --------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def repo(tmp_path: Path, ledger: Ledger) -> Repository:
    made = Repository(tmp_path / "shop")
    made.commit(headway_dot_yaml=SETTINGS)
    ledger.apps.register("shop", repo=str(made.path), host="generic", secret="s", by="ann")
    return made


def test_settings_of_the_default_branch_choose_the_released_branch(
    ledger: Ledger, repo: Repository, tmp_path: Path
) -> None:
    app = ledger.apps.get("shop")
    first = repo.commit("First")
    assert head_of(app.repo, tmp_path / "workspaces")[:2] == ("refs/heads/main", first)
    repo.git("checkout", "--quiet", "-b", "stable")
    stable = repo.commit("Stable")
    repo.git("checkout", "--quiet", "main")
    repo.commit(headway_dot_yaml=SETTINGS + "branch: stable\n")
    assert head_of(app.repo, tmp_path / "workspaces")[:2] == ("refs/heads/stable", stable)
    repo.commit(headway_dot_yaml=SETTINGS + "branch: gone\n")
    with pytest.raises(SettingsError, match="has no branch gone"):
        head_of(app.repo, tmp_path / "workspaces")


async def test_what_is_there_when_an_app_is_registered_is_not_released(
    ledger: Ledger, repo: Repository, tmp_path: Path
) -> None:
    wake = asyncio.Event()
    poller = BranchPoller(ledger, tmp_path / "workspaces", wake)
    there = repo.git("rev-parse", "HEAD")
    (line,) = await poller.reconcile()
    assert line.startswith(f"shop: refs/heads/main is at {there[:7]}, which is not released")
    assert [one.state for one in ledger.deliveries.recent("shop")] == ["ignored"]
    assert (await poller.reconcile(), wake.is_set(), ledger.deliveries.due()) == ([], False, [])
    repo.git("branch", "stable")
    repo.commit(headway_dot_yaml=SETTINGS + "branch: stable\n")
    (line,) = await poller.reconcile()
    assert line.startswith(f"shop: refs/heads/stable is at {there[:7]}, which is not released")
    assert not wake.is_set()


async def test_push_without_a_webhook_is_found_once(ledger: Ledger, repo: Repository, tmp_path: Path) -> None:
    wake = asyncio.Event()
    poller = BranchPoller(ledger, tmp_path / "workspaces", wake)
    await poller.reconcile()
    sha = repo.commit("Second")
    assert await poller.reconcile() == [f"shop: refs/heads/main is at {sha[:7]}, and no webhook delivered it"]
    assert wake.is_set()
    one, _ = ledger.deliveries.recent("shop")
    assert (one.ref, one.event.kind, one.delivery) == ("refs/heads/main", "push", f"poll-{sha}")
    assert await poller.reconcile() == []
    ledger.deliveries.settle([one.id], "ignored", "")
    assert await poller.reconcile() == []


async def test_unreachable_repository_does_not_affect_others(ledger: Ledger, repo: Repository, tmp_path: Path) -> None:
    ledger.apps.register("away", repo="/srv/git/away", host="generic", secret="s", by="ann")
    said = await BranchPoller(ledger, tmp_path / "workspaces", asyncio.Event()).reconcile()
    assert [line.split(":")[0] for line in said] == ["away", "shop"]
