"""Decisions on requests for approval: who may make them, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from headway.domain.access import Authority
from headway.domain.approvals import Decision, Outcome
from headway.domain.errors import HeadwayError, UsageError
from headway.domain.refusal import Refusal
from headway.ledger import ApprovalRecord, DecisionRecord, Ledger
from headway.policy.approval_rules import ApprovalRule, Voter, outcome, person_of, progress, refusal

__all__ = ["approvals_so_far", "changes", "decide", "no_longer_approved"]

TOKEN = "token:"  # noqa: S105  # how a token is written as the requester of a release
BASIS = ("sha", "digest", "configuration", "live", "database")
"""What an approval is for: when one of these changes, it is void."""


def decide(ledger: Ledger, owner: str, approval_id: str, decision: Decision) -> ApprovalRecord:
    """Record the decision of an authenticated principal; the request is closed when enough people have decided.

    `owner` is the OS user who owns HEADWAY_HOME. Raises UsageError when the principal may not decide, HeadwayError when
    the request is closed, or is void now because something else is live.
    """
    request = ledger.approvals.get(approval_id)
    rule = _rule(ledger, request)
    authority = ledger.grants.authority(decision.principal, owner)
    if refused := refusal(rule, authority, decision.decision, datetime.now(UTC)):
        raise UsageError(refused.what, refused.hint)
    if request.frozen and decision.decision == "approved" and not decision.reason.strip():
        raise UsageError(f"{request.environment} is frozen", "give the reason why it cannot wait: --reason WHY")
    changed = ledger.approvals.live_changed(request, rule.app)
    if changed and request.state == "waiting" and decision.decision == "approved":
        ledger.approvals.void(request.id, changed)
        raise HeadwayError(f"the approval is void: {changed}", "the release asks again: see headway status")

    def settle(decisions: Sequence[DecisionRecord]) -> Outcome:
        return outcome(rule.count, list(_voters(ledger, owner, rule, decisions)))

    return ledger.approvals.decide(approval_id, person_of(authority).casefold(), decision, settle)


def approvals_so_far(ledger: Ledger, owner: str, request: ApprovalRecord) -> str:
    """How many have approved a request that waits, and who, such as `1 of 2 approvals (ann)`; "" when it takes one."""
    rule = _rule(ledger, request)
    voters = _voters(ledger, owner, rule, ledger.approvals.decisions(request.id))
    return progress(rule.count, sorted(one.person for one in voters if one.valid and one.decision == "approved"))


def no_longer_approved(ledger: Ledger, owner: str, request: ApprovalRecord, evidence: dict[str, Any]) -> Refusal | None:
    """Why an approved request is void now: what it shows has changed, or people who approved may not any more."""
    if different := changes(request, evidence):
        return Refusal(different)
    rule = _rule(ledger, request)
    voters = list(_voters(ledger, owner, rule, ledger.approvals.decisions(request.id)))
    if outcome(rule.count, voters).state == "approved":
        return None
    gone = ", ".join(one.person for one in voters if not one.valid)
    return Refusal(f"{request.environment}: {gone} may not approve any more")


def changes(request: ApprovalRecord, evidence: dict[str, Any]) -> str:
    """What has changed since a request was made, of what an approval is for; "" when nothing has."""
    before = {name: request.evidence.get(name) for name in BASIS}
    changed = [f"{name} was {was}, is {evidence[name]}" for name, was in before.items() if was != evidence[name]]
    return f"{request.environment}: {'; '.join(changed)}" if changed else ""


def _voters(ledger: Ledger, owner: str, rule: ApprovalRule, decisions: Sequence[DecisionRecord]) -> Iterator[Voter]:
    """The decisions with what their principals may do now."""
    now = datetime.now(UTC)
    for one in decisions:
        authority: Authority = ledger.grants.authority(one.principal, owner)
        valid = refusal(rule, authority, one.decision, now) is None
        yield Voter(person=person_of(authority), decision=one.decision, reason=one.reason, valid=valid)


def _rule(ledger: Ledger, request: ApprovalRecord) -> ApprovalRule:
    release = ledger.releases.get(request.release_id)
    preview = ledger.previews.get(release.app)
    app = preview.of if preview else release.app
    pushed = ledger.deliveries.pushers(app, release.sha) if release.sha else []
    authors = {release.author or "", _owner_of(ledger, release.requested_by), *pushed} - {""}
    return ApprovalRule(
        app=app,
        environment=request.environment,
        by=tuple(request.by),
        count=request.count,
        authors=tuple(sorted(authors)) if request.not_author else (),
        frozen=request.frozen,
    )


def _owner_of(ledger: Ledger, requester: str) -> str:
    """The user behind a release that a token requested."""
    token = ledger.tokens.find(requester.removeprefix(TOKEN)) if requester.startswith(TOKEN) else None
    return token.owner if token else requester
