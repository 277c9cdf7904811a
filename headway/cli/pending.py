"""What an open release waits for."""

from __future__ import annotations

from headway.ledger import Ledger, ReleaseRecord
from headway.ledger.records import FORK

__all__ = ["pending_decision"]


def pending_decision(ledger: Ledger, release: ReleaseRecord) -> str:
    """The decision that an open release waits for, with the command that makes it; "" if it waits for none."""
    if asked := ledger.approvals.waiting(release.id):
        until = f"{asked.expires_at:%Y-%m-%d %H:%M} UTC"
        if asked.asks == FORK:
            return f"is from a fork and waits for an approval before {until}: headway approve {release.name}"
        if asked.frozen:
            return f"waits, {asked.environment} is frozen until {until}: headway approve {release.name} --reason WHY"
        if not_ready := asked.evidence.get("not_ready"):
            missing = "; ".join(not_ready)
            return f"waits, {asked.environment} is not ready ({missing}): headway approve {release.name}"
        return f"waits for an approval of {asked.environment} before {until}: headway approve {release.name}"
    for stage in ledger.stages.by_release(release.id):
        if stage.state == "waiting" and stage.finished_at is None:
            place = f"{release.app} {stage.name}"
            return f"waits for a decision: {stage.detail}: headway promote, skip or abort {place}"
    return ""
