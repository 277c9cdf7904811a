"""`headway approve` and `headway reject`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from headway.cli.help_text import examples
from headway.cli.identity import current_user
from headway.cli.options import By, Json, Reason, ReleaseArgument
from headway.cli.output import output
from headway.cli.pending import pending_decision
from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.system.paths import ledger_url

__all__ = ["approve", "reject"]


@examples(
    "headway approve shop#14",
    'headway approve shop#14 --by bob@example.com --reason "tested on staging"',
)
def approve(run: ReleaseArgument, by: By = "", reason: Reason = "", _json: Json = False) -> None:
    """Approve a release that waits for approval."""
    _decide(run, "approved", by, reason)


@examples(
    'headway reject shop#14 --reason "wrong prices"',
)
def reject(run: ReleaseArgument, by: By = "", reason: Reason = "", _json: Json = False) -> None:
    """Reject a release that waits for approval.

    Environments that it has already changed keep the new revision.
    """
    _decide(run, "rejected", by, reason)


def _decide(text: str, decision: Literal["approved", "rejected"], by: str, reason: str) -> None:
    """Enter the decision in the ledger, then resume the run. Raises HeadwayError when there is nothing to decide."""
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        found = ledger.releases.find(text)
        asked = ledger.approvals.waiting(found.id)
        if asked is None or not found.open:
            raise HeadwayError(
                f"{found.name} waits for no approval: it is {found.state}",
                f"it {waits}" if (waits := pending_decision(ledger, found)) else f"see headway history {found.app}",
            )
        done = ledger.approvals.decide(asked.id, decision, by=by or current_user(Path()), reason=reason, via="cli")
        if found.flow_run_id:
            word = "approve" if decision == "approved" else "reject"
            control.resume(found.flow_run_id, {"decision": word, "by": done.decided_by, "reason": reason})
        output.say(f"{found.name}: {done.environment} {decision} by {done.decided_by}")
        output.result(done.model_dump(mode="json"))
