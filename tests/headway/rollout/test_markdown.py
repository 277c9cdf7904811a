"""The text of an approval form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headway.domain.readiness import failed, passed
from headway.ledger import ApprovalRecord
from headway.policy.readiness.checklist import assess, unready
from headway.rollout.markdown import evidence_markdown

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EVIDENCE = {
    "release": "shop#4",
    "sha": "3f2a9c1" + "0" * 33,
    "author": "Ann | Bob",
    "digest": "sha256:1",
    "configuration": "c",
    "live": None,
    "commits": ["3f2a9c1 Cheaper (Ann)"],
    "stages": ["unit: passed 3 tests passed"],
}


def form(**more: Any) -> str:
    asked = ApprovalRecord(
        id="a",
        release_id="r",
        environment="production",
        revision="v",
        state="waiting",
        evidence={**EVIDENCE, **more},
        by=[],
        not_author=False,
        requested_at=NOW,
        expires_at=NOW,
        decided_at=None,
        decided_by=None,
        reason=None,
        via=None,
    )
    return evidence_markdown(asked)


def test_approval_form_has_the_checklist_and_what_approval_accepts() -> None:
    found = {"previous": passed("a1 can be had"), "tls": failed("http://shop.example.com | plain")}
    results = assess(found, {}, ["rollback", "tls"], NOW.date())
    shown = form(
        readiness=[one.row for one in results], not_ready=[f"{one.name}: {one.evidence}" for one in unready(results)]
    )
    accepted, table = shown.split("| readiness | | needed | |")
    assert "**Not ready: who approves accepts that**" in accepted
    assert "- tls: http://shop.example.com \\| plain" in accepted
    assert "- schema: not verified and not attested" in accepted
    assert "previous" not in accepted
    assert "| previous | pass | yes | a1 can be had |" in table
    assert "| tls | fail | yes | http://shop.example.com \\| plain |" in table
    assert "| runbook | unknown |  | not verified and not attested |" in table


def test_approval_form_without_unready_items_or_without_a_checklist() -> None:
    results = assess({"tls": passed("https")}, {}, ["tls"], NOW.date())
    assert "who approves accepts that" not in form(readiness=[one.row for one in results], not_ready=[])
    assert "readiness" not in form()


def test_approval_form_names_what_is_approved() -> None:
    shown = form(frozen="frozen until Mon", database="expand: a.sql")
    for line in (
        "### shop#4 to production?",
        "| artifact | `sha256:1` |",
        "| commit | `3f2a9c1000000000000000000000000000000000` by Ann \\| Bob |",
        "| live now | `nothing` |",
        "| database | expand: a.sql |",
        "| frozen | frozen until Mon |",
        "- 3f2a9c1 Cheaper (Ann)",
        "- unit: passed 3 tests passed",
    ):
        assert line in shown
