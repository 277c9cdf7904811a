"""Previews in the ledger, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.errors import UsageError
from headway.ledger import Delivery, Ledger, PreviewRecord
from headway.ledger.records import FORK
from headway.scm.webhooks import PullRequestEvent
from tests.standins.people import decides

SHA, OTHER = "a" * 40, "b" * 40
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def opened(ledger: Ledger, number: int = 42, head: str = SHA, of: str = "shop") -> PreviewRecord:
    return ledger.previews.open(f"{of}-pr-{number}", of=of, number=number, head=head, fork=False)


def test_opened_preview_is_active_and_closed_one_is_not(ledger: Ledger) -> None:
    made = opened(ledger)
    assert (made.active, made.url, made.expires_at, made.reported) == (True, None, None, False)
    ledger.previews.mark_deployed("shop-pr-42", "http://here", LATER)
    (active,) = ledger.previews.active()
    assert (active.url, active.expires_at) == ("http://here", LATER)
    ledger.previews.close("shop-pr-42", "it was closed")
    ledger.previews.close("shop-pr-42", "twice")
    closed = ledger.previews.get("shop-pr-42")
    assert closed
    assert (closed.active, closed.reason, closed.url, closed.expires_at) == (False, "it was closed", None, None)
    assert ledger.previews.active() == []


def test_reopened_preview_is_the_same_with_the_newest_commit(ledger: Ledger) -> None:
    made = opened(ledger)
    ledger.previews.close("shop-pr-42", "it was closed")
    again = opened(ledger, head=OTHER)
    assert (again.mark, again.opened_at, again.head, again.active) == (made.mark, made.opened_at, OTHER, True)
    assert opened(ledger, 43).mark != made.mark


def test_previews_are_listed_by_app_and_number(ledger: Ledger) -> None:
    for of, number in (("shop", 10), ("shop", 9), ("bank", 11)):
        opened(ledger, number, of=of)
    assert [one.app for one in ledger.previews.active()] == ["bank-pr-11", "shop-pr-9", "shop-pr-10"]
    assert [one.app for one in ledger.previews.active("bank")] == ["bank-pr-11"]
    assert ledger.previews.names() == {"bank-pr-11", "shop-pr-9", "shop-pr-10"}


def test_teardown_is_reported_to_the_host_until_acknowledged(ledger: Ledger) -> None:
    opened(ledger)
    ledger.previews.mark_reported("shop-pr-42")  # it is active: there will be more to report
    assert [one.app for one in ledger.previews.unreported(["shop"])] == ["shop-pr-42"]
    assert ledger.previews.unreported(["bank"]) == ledger.previews.unreported([]) == []
    ledger.previews.close("shop-pr-42", "it was closed")
    assert len(ledger.previews.unreported(["shop"])) == 1
    ledger.previews.mark_reported("shop-pr-42")
    assert ledger.previews.unreported(["shop"]) == []
    opened(ledger)
    assert len(ledger.previews.unreported(["shop"])) == 1


def test_preview_and_app_cannot_share_a_name(ledger: Ledger) -> None:
    ledger.releases.start("shop-pr-1", "/repo", "main", flow_run_id=None, requested_by="ann")
    ledger.apps.register("shop-pr-2", repo="/srv/2", host="generic", secret="s", by="ann")
    for number in (1, 2):
        with pytest.raises(UsageError, match=f"shop-pr-{number}: an app has this name"):
            opened(ledger, number)
    opened(ledger, 3)
    with pytest.raises(UsageError, match="shop-pr-3 is the preview of pull request 3 of shop"):
        ledger.releases.start("shop-pr-3", "/repo", "main", flow_run_id=None, requested_by="ann")
    with pytest.raises(UsageError, match="shop-pr-3 is the preview"):
        ledger.apps.register("shop-pr-3", repo="/srv/3", host="generic", secret="s", by="ann")
    ledger.releases.start("shop-pr-3", "/repo", SHA, flow_run_id="r", requested_by="bob", preview=True)
    with pytest.raises(UsageError, match="shop-pr-3: an app has this name"):
        ledger.previews.open("shop-pr-3", of="other", number=3, head=SHA, fork=False)
    opened(ledger, 3)  # its own releases are no other app's


def test_active_previews_of_all_apps_are_listed(ledger: Ledger) -> None:
    """The reconciler reads active previews only, not all earlier ones."""
    for number in (1, 2):
        opened(ledger, number)
        ledger.releases.start(f"shop-pr-{number}", "/r", SHA, flow_run_id=f"{number}", requested_by="bob", preview=True)
    ledger.previews.close("shop-pr-1", "it was closed")
    assert ledger.releases.apps() == ["shop-pr-2"]


def test_approval_of_a_fork_covers_one_commit(ledger: Ledger) -> None:
    opened(ledger)
    first, second = (
        ledger.releases.start("shop-pr-42", "/repo", SHA, flow_run_id=run, requested_by="bob", preview=True)
        for run in "12"
    )
    for one in (first, second):
        ledger.releases.update(one.id, sha=SHA)
    asked = ledger.approvals.request(
        first.id, "preview", SHA[:12], evidence={}, expires_at=LATER, by=[], not_author=False, asks=FORK
    )
    assert not asked.frozen
    assert ledger.approvals.fork_approval("shop-pr-42", SHA) is None
    decides(ledger, asked.id, "approved", "ann")
    known = ledger.approvals.fork_approval("shop-pr-42", SHA)
    assert known
    assert (known.decided_by, known.release_id) == ("ann", first.id)
    assert ledger.approvals.fork_approval("shop-pr-42", OTHER) is None
    assert ledger.approvals.fork_approval("shop-pr-43", SHA) is None


def test_failed_teardown_is_recorded_until_the_preview_changes(ledger: Ledger) -> None:
    opened(ledger)
    ledger.previews.mark_stuck("shop-pr-42")
    assert [one.given_up_at is None for one in ledger.previews.active()] == [False]
    assert opened(ledger, head=OTHER).given_up_at is None
    ledger.previews.mark_stuck("shop-pr-42")
    ledger.previews.mark_deployed("shop-pr-42", None, None)
    assert [one.given_up_at for one in ledger.previews.active()] == [None]


def test_mentions_are_searched_after_a_given_delivery(ledger: Ledger) -> None:
    for name, is_open in (("1", True), ("2", False), ("3", True)):
        event = PullRequestEvent(places=(), number=42, open=is_open, head=SHA, ref="r", base="m", fork=False, by="")
        ledger.deliveries.receive([Delivery(app="shop", delivery=name, event=event)])
    again, closed, _ = (one.id for one in ledger.deliveries.recent("shop"))
    assert ledger.deliveries.mentions("shop", "#42", SHA)
    assert ledger.deliveries.mentions("shop", "#42", SHA, after=closed)
    assert not ledger.deliveries.mentions("shop", "#42", SHA, after=again)
    assert not ledger.deliveries.mentions("shop", "#42", OTHER)


def test_concurrent_openings_create_one_preview(ledger: Ledger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: opened(ledger), range(8)))
    assert len({one.mark for one in made}) == 1


def test_preview_deployed_after_its_teardown_is_active(ledger: Ledger) -> None:
    """The preview was torn down while its commit waited for an approval, which was given later."""
    opened(ledger)
    ledger.previews.close("shop-pr-42", "by hand")
    ledger.previews.mark_deployed("shop-pr-42", "http://here", datetime.now(UTC) + timedelta(hours=1))
    assert [one.reason for one in ledger.previews.active()] == [""]
