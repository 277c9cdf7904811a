"""What an open release waits for."""

from __future__ import annotations

from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.records import FORK
from headway.policy.approvals import approvals_so_far
from headway.system.os_user import home_owner
from headway.system.paths import home

__all__ = ["pending_decision"]


def pending_decision(ledger: Ledger, release: ReleaseRecord) -> str:
    """The decision that an open release waits for, with the command that makes it; "" if it waits for none."""
    if asked := ledger.approvals.waiting(release.id):
        again = f" (again: {asked.evidence['again']})" if asked.evidence.get("again") else ""
        until = f"{asked.expires_at:%Y-%m-%d %H:%M} UTC"
        so_far = approvals_so_far(ledger, home_owner(home()), asked)
        if asked.asks == FORK:
            return f"is from a fork and waits for an approval before {until}: headway approve {release.name}"
        if asked.frozen:
            return f"waits, {asked.environment} is frozen until {until}: headway approve {release.name} --reason WHY"
        if not_ready := asked.evidence.get("not_ready"):
            missing = "; ".join([*not_ready, *([so_far] if so_far else [])])
            return f"waits, {asked.environment} is not ready ({missing}): headway approve {release.name}"
        wanted = (
            f"for approval of {asked.environment}, {so_far}," if so_far else f"for an approval of {asked.environment}"
        )
        return f"waits {wanted} before {until}{again}: headway approve {release.name}"
    for stage in ledger.stages.by_release(release.id):
        if stage.state == "waiting" and stage.finished_at is None:
            place = f"{release.app} {stage.name}"
            return f"waits for a decision: {stage.detail}: headway promote, skip or abort {place}"
    return ""
