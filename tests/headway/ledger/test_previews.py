"""Previews in the ledger, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.errors import UsageError
from headway.ledger import Delivery, Ledger, PreviewRecord
from headway.ledger.records import FORK
from headway.scm.webhooks import PullRequestEvent

SHA, OTHER = "a" * 40, "b" * 40
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def opened(ledger: Ledger, number: int = 42, head: str = SHA, of: str = "shop") -> PreviewRecord:
    return ledger.open_preview(f"{of}-pr-{number}", of=of, number=number, head=head, fork=False)


def test_what_is_opened_stands_and_what_is_closed_does_not(ledger: Ledger) -> None:
    made = opened(ledger)
    assert (made.stands, made.url, made.expires_at, made.told) == (True, None, None, False)
    ledger.preview_is_up("shop-pr-42", "http://here", LATER)
    (stands,) = ledger.previews()
    assert (stands.url, stands.expires_at) == ("http://here", LATER)
    ledger.close_preview("shop-pr-42", "it was closed")
    ledger.close_preview("shop-pr-42", "twice")
    closed = ledger.preview("shop-pr-42")
    assert closed
    assert (closed.stands, closed.reason, closed.url, closed.expires_at) == (False, "it was closed", None, None)
    assert ledger.previews() == []


def test_what_is_opened_again_is_the_same_with_the_newest_commit(ledger: Ledger) -> None:
    made = opened(ledger)
    ledger.close_preview("shop-pr-42", "it was closed")
    again = opened(ledger, head=OTHER)
    assert (again.mark, again.opened_at, again.head, again.stands) == (made.mark, made.opened_at, OTHER, True)
    assert opened(ledger, 43).mark != made.mark


def test_they_are_listed_by_app_and_number(ledger: Ledger) -> None:
    for of, number in (("shop", 10), ("shop", 9), ("bank", 11)):
        opened(ledger, number, of=of)
    assert [one.app for one in ledger.previews()] == ["bank-pr-11", "shop-pr-9", "shop-pr-10"]
    assert [one.app for one in ledger.previews("bank")] == ["bank-pr-11"]
    assert ledger.previews_named() == {"bank-pr-11", "shop-pr-9", "shop-pr-10"}


def test_a_host_is_told_until_it_knows_of_the_end(ledger: Ledger) -> None:
    opened(ledger)
    ledger.preview_told("shop-pr-42")  # it stands: there will be more to tell
    assert [one.app for one in ledger.previews_to_tell(["shop"])] == ["shop-pr-42"]
    assert ledger.previews_to_tell(["bank"]) == ledger.previews_to_tell([]) == []
    ledger.close_preview("shop-pr-42", "it was closed")
    assert len(ledger.previews_to_tell(["shop"])) == 1
    ledger.preview_told("shop-pr-42")
    assert ledger.previews_to_tell(["shop"]) == []
    opened(ledger)
    assert len(ledger.previews_to_tell(["shop"])) == 1


def test_an_app_proper_and_a_preview_never_have_one_name(ledger: Ledger) -> None:
    ledger.start_release("shop-pr-1", "/repo", "main", flow_run_id=None, requested_by="ann")
    ledger.register_app("shop-pr-2", repo="/srv/2", host="generic", secret="s", by="ann")
    for number in (1, 2):
        with pytest.raises(UsageError, match=f"shop-pr-{number}: an app has this name"):
            opened(ledger, number)
    opened(ledger, 3)
    with pytest.raises(UsageError, match="shop-pr-3 is the preview of pull request 3 of shop"):
        ledger.start_release("shop-pr-3", "/repo", "main", flow_run_id=None, requested_by="ann")
    with pytest.raises(UsageError, match="shop-pr-3 is the preview"):
        ledger.register_app("shop-pr-3", repo="/srv/3", host="generic", secret="s", by="ann")
    ledger.start_release("shop-pr-3", "/repo", SHA, flow_run_id="r", requested_by="bob", preview=True)
    with pytest.raises(UsageError, match="shop-pr-3: an app has this name"):
        ledger.open_preview("shop-pr-3", of="other", number=3, head=SHA, fork=False)
    opened(ledger, 3)  # its own releases are no other app's


def test_of_all_apps_previews_are_there_while_they_stand(ledger: Ledger) -> None:
    """Whoever looks after what runs does not look at all that ever ran."""
    for number in (1, 2):
        opened(ledger, number)
        ledger.start_release(f"shop-pr-{number}", "/r", SHA, flow_run_id=f"{number}", requested_by="bob", preview=True)
    ledger.close_preview("shop-pr-1", "it was closed")
    assert ledger.apps() == ["shop-pr-2"]


def test_who_let_a_commit_in_is_known_for_that_commit_alone(ledger: Ledger) -> None:
    opened(ledger)
    first, second = (
        ledger.start_release("shop-pr-42", "/repo", SHA, flow_run_id=run, requested_by="bob", preview=True)
        for run in "12"
    )
    for one in (first, second):
        ledger.update_release(one.id, sha=SHA)
    asked = ledger.request_approval(
        first.id, "preview", SHA[:12], evidence={}, expires_at=LATER, by=[], not_author=False, asks=FORK
    )
    assert not asked.frozen
    assert ledger.let_in("shop-pr-42", SHA) is None
    ledger.decide(asked.id, "approved", by="ann", reason="", via="cli")
    known = ledger.let_in("shop-pr-42", SHA)
    assert known
    assert (known.decided_by, known.release_id) == ("ann", first.id)
    assert ledger.let_in("shop-pr-42", OTHER) is None
    assert ledger.let_in("shop-pr-43", SHA) is None


def test_what_was_given_up_on_is_known_until_it_changes(ledger: Ledger) -> None:
    opened(ledger)
    ledger.give_up_preview("shop-pr-42")
    assert [one.given_up_at is None for one in ledger.previews()] == [False]
    assert opened(ledger, head=OTHER).given_up_at is None
    ledger.give_up_preview("shop-pr-42")
    ledger.preview_is_up("shop-pr-42", None, None)
    assert [one.given_up_at for one in ledger.previews()] == [None]


def test_what_was_heard_of_before_it_was_closed_is_not_heard_of_after(ledger: Ledger) -> None:
    for name, is_open in (("1", True), ("2", False), ("3", True)):
        event = PullRequestEvent(places=(), number=42, open=is_open, head=SHA, ref="r", base="m", fork=False, by="")
        ledger.receive([Delivery(app="shop", delivery=name, event=event)])
    again, closed, _ = (one.id for one in ledger.deliveries("shop"))
    assert ledger.heard_of("shop", "#42", SHA)
    assert ledger.heard_of("shop", "#42", SHA, after=closed)
    assert not ledger.heard_of("shop", "#42", SHA, after=again)
    assert not ledger.heard_of("shop", "#42", OTHER)


def test_two_that_open_it_at_once_open_one(ledger: Ledger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: opened(ledger), range(8)))
    assert len({one.mark for one in made}) == 1


def test_what_is_up_after_it_was_torn_down_stands_again(ledger: Ledger) -> None:
    """Somebody tore it down while its commit waited for a person, who then let it in."""
    opened(ledger)
    ledger.close_preview("shop-pr-42", "by hand")
    ledger.preview_is_up("shop-pr-42", "http://here", datetime.now(UTC) + timedelta(hours=1))
    assert [one.reason for one in ledger.previews()] == [""]
