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
from headway.ledger import ApprovalRecord, Ledger, ReleaseRecord
from headway.service.prefect.client import Control
from headway.system.paths import ledger_url

__all__ = ["approve", "reject"]

PATIENCE = 15.0  # seconds that a busy server is waited for: `headway up` resumes the run as well


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
    """Record the decision in the ledger, then resume the run. Raises HeadwayError when there is nothing to decide.

    The decision counts once it is recorded: a run that cannot be resumed now is resumed by `headway up` later.
    """
    with Ledger.open(ledger_url()) as ledger, Control(patience=PATIENCE) as control:
        found = ledger.releases.find(text)
        asked = ledger.approvals.waiting(found.id)
        if asked is not None and found.open:
            done = ledger.approvals.decide(asked.id, decision, by=by or current_user(Path()), reason=reason, via="cli")
        else:
            done = _decided_before(ledger, found, decision)
        output.say(f"{found.name}: {done.environment} {decision} by {done.decided_by}")
        if found.flow_run_id:
            _resume(control, found.flow_run_id)
        output.result(done.model_dump(mode="json"))


def _decided_before(ledger: Ledger, release: ReleaseRecord, decision: str) -> ApprovalRecord:
    """The same decision, of a release that has not continued yet. Raises HeadwayError."""
    done = ledger.approvals.last_decided(release.id)
    if done is not None and done.state == decision and release.state == "waiting":
        return done
    raise HeadwayError(
        f"{release.name} waits for no approval: it is {release.state}",
        f"it {waits}" if (waits := pending_decision(ledger, release)) else f"see headway history {release.app}",
    )


def _resume(control: Control, flow_run_id: str) -> None:
    try:
        control.wake(flow_run_id)
    except HeadwayError as error:
        output.say(f"the decision is recorded; the release continues when the Prefect server responds: {error.what}")
