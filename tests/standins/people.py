"""People who decide on releases, as a sign-in or the operating system has authenticated them."""

from __future__ import annotations

from headway.domain.approvals import Decision, Verb
from headway.domain.principal import Principal
from headway.ledger import ApprovalRecord, Ledger
from headway.policy.approvals import decide

__all__ = ["OWNER", "decides", "user"]

OWNER = "owner"  # of HEADWAY_HOME: an admin


def user(name: str, *groups: str) -> Principal:
    return Principal(kind="user", name=name, groups=groups)


def decides(
    ledger: Ledger, asked: str, verb: Verb, who: str | Principal, reason: str = "", via: str = "cli"
) -> ApprovalRecord:
    """Decide on a request. Raises what `decide` does."""
    principal = user(who) if isinstance(who, str) else who
    return decide(ledger, OWNER, asked, Decision(principal=principal, decision=verb, reason=reason, via=via))
