"""Decisions on requests, in a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headway.domain.access import Action, Scope
from headway.domain.errors import HeadwayError, UsageError
from headway.domain.events import PushEvent
from headway.domain.plan import Plan
from headway.domain.principal import Principal, Role
from headway.ledger import ApprovalRecord, Delivery, Ledger, ReleaseRecord, RolloutKind
from headway.policy.approvals import approvals_so_far, changes, no_longer_approved
from tests.standins.people import OWNER, decides, user

SHA = "a" * 40
EVIDENCE: dict[str, Any] = {"sha": SHA, "digest": "d", "configuration": "c", "live": None, "database": ""}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def release(ledger: Ledger, requested_by: str = "dan", author: str = "Ann <ann@example.com>") -> ReleaseRecord:
    made = ledger.releases.start("shop", "/repo", "main", flow_run_id=None, requested_by=requested_by)
    return ledger.releases.update(made.id, sha=SHA, author=author)


def request(ledger: Ledger, made: ReleaseRecord | None = None, **rule: Any) -> ApprovalRecord:
    made = made or release(ledger)
    expires = datetime.now(UTC) + timedelta(hours=1)
    wanted: dict[str, Any] = {"evidence": EVIDENCE, "expires_at": expires, "by": [], "not_author": False} | rule
    return ledger.approvals.request(made.id, "production", "r1", **wanted)


def test_two_people_approve_and_one_who_presses_twice_is_one(ledger: Ledger) -> None:
    asked = request(ledger, count=2)
    for _ in range(2):
        assert decides(ledger, asked.id, "approved", "bob", "read it").state == "waiting"
    assert approvals_so_far(ledger, OWNER, asked) == "1 of 2 approvals (bob)"
    done = decides(ledger, asked.id, "approved", "cleo", via="ui")
    assert (done.state, done.decided_by, done.reason, done.via) == ("approved", "bob, cleo", "bob: read it", "ui")
    assert [one.person for one in ledger.approvals.decisions(asked.id)] == ["bob", "cleo"]


def test_one_rejection_rejects_also_by_who_had_approved(ledger: Ledger) -> None:
    asked = request(ledger, count=3)
    decides(ledger, asked.id, "approved", "bob")
    decides(ledger, asked.id, "approved", "cleo")
    done = decides(ledger, asked.id, "rejected", "bob", "wrong prices")
    assert (done.state, done.decided_by, done.reason) == ("rejected", "bob", "wrong prices")
    with pytest.raises(HeadwayError, match="already decided: rejected by bob"):
        decides(ledger, asked.id, "approved", "dan")


def test_approvers_at_the_same_time_are_all_counted(ledger: Ledger) -> None:
    asked = request(ledger, count=8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: decides(ledger, asked.id, "approved", name), "abcdefgh"))
    assert ledger.approvals.get(asked.id).state == "approved"


@pytest.mark.parametrize("who", ["ann", "dan", "pat", "tess"])
def test_author_requester_and_pusher_may_not_approve(ledger: Ledger, who: str) -> None:
    """Whoever started the run, and also when the commit was pushed by another person than its author."""
    event = PushEvent(places=(), ref="refs/heads/main", before=None, after=SHA, by="pat")
    ledger.deliveries.receive([Delivery(app="shop", delivery="1", event=event)])
    asked = request(ledger, release(ledger, requested_by="tess at github" if who == "tess" else "dan"), not_author=True)
    with pytest.raises(UsageError, match=f"{who} is the author of the change, pushed it or requested its release"):
        decides(ledger, asked.id, "approved", who)
    assert decides(ledger, asked.id, "approved", "bob").state == "approved"


def test_the_owner_of_the_token_that_requested_a_release_may_not_approve_it(ledger: Ledger) -> None:
    scope = Scope(actions=(Action.RELEASE, Action.APPROVE))
    ledger.tokens.create("ci", owner=user("bob"), scope=scope, expires_at=None)
    ledger.grants.grant("bob", Role.APPROVER, None, by=OWNER)
    asked = request(ledger, release(ledger, requested_by="token:ci"), not_author=True)
    for bob in (user("bob"), Principal(kind="token", name="ci")):
        with pytest.raises(UsageError, match="is the author of the change"):
            decides(ledger, asked.id, "approved", bob)


def test_a_user_and_a_token_of_the_user_count_once(ledger: Ledger) -> None:
    ledger.tokens.create("ci", owner=user("bob"), scope=Scope(actions=(Action.APPROVE,)), expires_at=None)
    ledger.grants.grant("bob", Role.APPROVER, None, by=OWNER)
    asked = request(ledger, count=2)
    for bob in (user("bob"), Principal(kind="token", name="ci")):
        assert decides(ledger, asked.id, "approved", bob).state == "waiting"


def test_an_approval_counts_as_long_as_its_author_has_the_role(ledger: Ledger) -> None:
    for name in ("bob", "cleo", "eve"):
        ledger.grants.grant(name, Role.APPROVER, "shop", by=OWNER)
    asked = request(ledger, count=2)
    decides(ledger, asked.id, "approved", "bob")
    ledger.grants.revoke("bob", "shop", by=OWNER)
    assert approvals_so_far(ledger, OWNER, asked) == "0 of 2 approvals"
    assert decides(ledger, asked.id, "approved", "cleo").state == "waiting"
    done = decides(ledger, asked.id, "approved", "eve")
    assert (done.state, done.decided_by) == ("approved", "cleo, eve")
    assert no_longer_approved(ledger, OWNER, done, EVIDENCE) is None
    ledger.grants.remove_user("eve", by=OWNER)
    gone = no_longer_approved(ledger, OWNER, done, EVIDENCE)
    assert gone is not None
    assert "eve may not approve any more" in gone.what


def test_a_rejection_of_somebody_without_the_role_is_refused(ledger: Ledger) -> None:
    ledger.grants.grant("cleo", Role.APPROVER, "shop", by=OWNER)
    with pytest.raises(UsageError, match="that needs the role approver"):
        decides(ledger, request(ledger).id, "rejected", "bob")


def test_members_of_a_local_group_may_approve(ledger: Ledger) -> None:
    asked = request(ledger, by=["group:release-owners"])
    with pytest.raises(UsageError, match="bob may not decide on production"):
        decides(ledger, asked.id, "approved", "bob")
    ledger.grants.add_member("release-owners", "bob", by=OWNER)
    assert decides(ledger, asked.id, "approved", "bob").state == "approved"


def test_the_roles_of_an_app_hold_for_its_previews(ledger: Ledger) -> None:
    ledger.previews.open("shop-pr-4", of="shop", number=4, head=SHA, fork=True)
    made = ledger.releases.start("shop-pr-4", "/repo", SHA, flow_run_id=None, requested_by="eve", preview=True)
    ledger.grants.grant("cleo", Role.APPROVER, "shop", by=OWNER)
    asked = request(ledger, made)
    with pytest.raises(UsageError, match="that needs the role approver"):
        decides(ledger, asked.id, "approved", "bob")
    assert decides(ledger, asked.id, "approved", "cleo").state == "approved"


# --- void ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sha", "digest", "configuration", "live", "database"])
def test_an_approval_is_void_when_what_it_shows_has_changed(ledger: Ledger, what: str) -> None:
    asked = request(ledger)
    done = decides(ledger, asked.id, "approved", "bob")
    assert no_longer_approved(ledger, OWNER, done, EVIDENCE | {"stages": ["unit"], "frozen": "now"}) is None
    void = no_longer_approved(ledger, OWNER, done, EVIDENCE | {what: "other"})
    assert void is not None
    assert f"{what} was {EVIDENCE[what]}, is other" in void.what
    assert changes(done, EVIDENCE) == ""


def goes_live(ledger: Ledger, revision: str, of: ReleaseRecord | None, kind: RolloutKind = "release") -> None:
    lock = ledger.locks.acquire("shop", "production", holder="x", revision=revision, lease=30)
    assert lock is not None
    plan = Plan(strategy="rolling", new=revision, old=None, steps=())
    release_id = of.id if of else None
    done = ledger.rollouts.start(release_id, "shop", "production", plan, kind=kind, reason="", token=lock.token)
    ledger.rollouts.finish(done.id, "done")
    ledger.locks.release(lock)


def test_a_decision_is_refused_when_something_else_is_live_than_the_request_shows(ledger: Ledger) -> None:
    asked = request(ledger)
    goes_live(ledger, "r9", release(ledger))
    with pytest.raises(HeadwayError, match="the approval is void: production: r9 is live now, not nothing"):
        decides(ledger, asked.id, "approved", "bob")
    assert ledger.approvals.get(asked.id).state == "void"


def test_what_is_live_may_change_before_a_rejection(ledger: Ledger) -> None:
    asked = request(ledger)
    goes_live(ledger, "r9", release(ledger))
    assert decides(ledger, asked.id, "rejected", "bob").state == "rejected"


def test_requests_are_void_where_something_else_is_live(ledger: Ledger) -> None:
    made = release(ledger)
    asked = request(ledger, made)
    assert ledger.approvals.void_changed() == []
    goes_live(ledger, "r9", release(ledger))
    assert [(one.id, one.state) for one in ledger.approvals.void_changed()] == [(asked.id, "void")]
    assert ledger.approvals.void_changed() == []
    request(ledger, made, evidence=EVIDENCE | {"live": "r9"})
    assert ledger.approvals.void_changed() == []
    goes_live(ledger, "r10", release(ledger))
    ledger.releases.finish(made.id, "cancelled", "")
    assert ledger.approvals.void_changed() == []  # nobody waits for it


def test_a_release_is_older_than_the_one_that_is_live(ledger: Ledger) -> None:
    first, second, third = (release(ledger) for _ in range(3))
    approvals = ledger.approvals

    def newer(than: ReleaseRecord) -> str:
        found = approvals.newer_live(than.id, "production")
        return found.name if found else ""

    assert newer(first) == ""
    goes_live(ledger, "r1", first)
    assert (newer(first), newer(second)) == ("", "")
    goes_live(ledger, "r3", third)
    assert (newer(first), newer(second), newer(third)) == ("shop#3", "shop#3", "")
    goes_live(ledger, "r1", None, "rollback")  # the newer one was rolled back
    assert (newer(first), newer(second)) == ("", "")
    assert approvals.newer_live(first.id, "staging") is None


def test_a_void_request_is_made_again_without_its_decisions(ledger: Ledger) -> None:
    made = release(ledger)
    first = request(ledger, made, count=2)
    decides(ledger, first.id, "approved", "bob")
    ledger.approvals.void(first.id, "production: live was a, is b")
    again = request(ledger, made, count=2)
    assert (again.round, again.state) == (1, "waiting")
    assert ledger.approvals.decisions(again.id) == []
    assert decides(ledger, again.id, "approved", "cleo").state == "waiting"
    assert request(ledger, made).id == again.id
    with pytest.raises(HeadwayError, match="void, production: live was a, is b"):
        decides(ledger, first.id, "approved", "cleo")


@pytest.mark.parametrize("state", ["rejected", "expired"])
def test_a_request_that_was_closed_is_not_made_again(ledger: Ledger, state: str) -> None:
    made = release(ledger)
    asked = request(ledger, made)
    if state == "rejected":
        decides(ledger, asked.id, "rejected", "bob")
    else:
        ledger.approvals.expire(asked.expires_at)
    ledger.approvals.void(asked.id, "late")
    assert request(ledger, made).id == asked.id
    assert ledger.approvals.get(asked.id).state == state


def test_an_answered_form_has_a_number_and_counts_once(ledger: Ledger) -> None:
    asked = request(ledger)
    pressed = ledger.prefect_requests.record(user("bob"), "POST", "/api/flow_runs/x/resume", None)
    for _ in range(2):  # the process died after the first one
        ledger.approvals.close_form(asked)
    now = ledger.approvals.get(asked.id)
    assert (asked.form, now.form, now.form_after) == (0, 1, pressed)


def test_requests_and_decisions_are_in_the_audit_trail(ledger: Ledger) -> None:
    asked = request(ledger, count=2)
    decides(ledger, asked.id, "approved", "bob", "read it")
    decides(ledger, asked.id, "rejected", Principal(kind="user", name="cleo"), via="ui")
    late = request(ledger, expires_at=datetime.now(UTC))
    ledger.approvals.expire(datetime.now(UTC))
    ledger.approvals.void(request(ledger).id, "something else is live")
    ledger.approvals.void(late.id, "too late")
    events = ledger.audit.last(20, action="approval.")
    assert [(one.action, one.subject, one.principal) for one in events] == [
        ("approval.requested", "shop#1", "headway"),
        ("approval.approved", "shop#1", "bob"),
        ("approval.rejected", "shop#1", "cleo"),
        ("approval.requested", "shop#2", "headway"),
        ("approval.expired", "shop#2", "headway"),
        ("approval.requested", "shop#3", "headway"),
        ("approval.void", "shop#3", "headway"),
    ]
    assert [one.details["state"] for one in events[1:3]] == ["waiting", "rejected"]
    assert (events[1].details["reason"], events[2].details["via"]) == ("read it", "ui")
