"""Approval of commits from forks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headway.config import Approval, Settings
from headway.domain.errors import HeadwayError
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.ledger.records import FORK
from tasks import approvals
from tasks.release_record import ReleaseSession

pytestmark = pytest.mark.slow

SHA = "a" * 40
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.mark.parametrize("own", [True, False])
async def test_a_commit_of_a_fork_is_approved_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """In the run that had asked, and in a later one of the same commit."""
    monkeypatch.setattr(approvals, "request_fork_approval", approvals.request_fork_approval.fn)
    records = [ledger.releases.start("shop-pr-42", "/r", SHA, flow_run_id=run, requested_by="bob") for run in "12"]
    for one in records:
        ledger.releases.update(one.id, sha=SHA)
    releases = [ReleaseSession(ledger, one) for one in records]
    source = Source(
        repo="/r",
        ref=SHA,
        sha=SHA,
        tree=SHA,
        author="Bob",
        subject="Change",
        committed_at=datetime.now(UTC),
        workspace="/w",
    )
    request = await approvals.request_fork_approval(releases[0], source, Approval())
    assert (request.revision, request.by) == (SHA[:12], [])
    ledger.approvals.decide(request.id, "approved", by="ann", reason="", via="cli")
    release = releases[0 if own else 1]
    await approvals.wait_for_fork_approval(release, source, Settings(app="shop-pr-42"))
    (stage,) = ledger.stages.by_release(release.record.id)
    assert (stage.name, stage.state) == ("approval of the fork", "passed" if own else "skipped")
    assert "approved by ann" in stage.detail


async def test_the_environment_names_who_may_approve_forks(ledger: Ledger) -> None:
    release = ledger.releases.start("shop-pr-42", "/r", SHA, flow_run_id="1", requested_by="bob")
    request = ledger.approvals.request(
        release.id, "preview", SHA[:12], evidence={}, expires_at=LATER, by=["ann"], not_author=False, asks=FORK
    )
    with pytest.raises(HeadwayError, match="bob may not decide"):
        ledger.approvals.decide(request.id, "approved", by="bob", reason="", via="cli")
