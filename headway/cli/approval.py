"""`headway approve` and `headway reject`."""

from __future__ import annotations

from headway.cli.help_text import examples
from headway.cli.options import By, Json, Reason, ReleaseArgument
from headway.cli.output import output
from headway.domain.approvals import Decision, Verb
from headway.domain.errors import HeadwayError
from headway.ledger import ApprovalRecord, Ledger, ReleaseRecord
from headway.policy.approvals import approvals_so_far, decide
from headway.service.pending import pending_decision
from headway.service.prefect.client import Control
from headway.system.os_user import home_owner, os_user
from headway.system.paths import home, ledger_url

__all__ = ["approve", "reject"]

PATIENCE = 15.0  # seconds that a busy server is waited for: `headway up` resumes the run as well


@examples(
    "headway approve shop#14",
    'headway approve shop#14 --reason "tested on staging"',
)
def approve(run: ReleaseArgument, _by: By = "", reason: Reason = "", _json: Json = False) -> None:
    """Approve a release that waits for approval.

    The record names the user of the operating system who runs the command.
    """
    _decide(run, "approved", reason)


@examples(
    'headway reject shop#14 --reason "wrong prices"',
)
def reject(run: ReleaseArgument, _by: By = "", reason: Reason = "", _json: Json = False) -> None:
    """Reject a release that waits for approval.

    Environments that it has already changed keep the new revision.
    """
    _decide(run, "rejected", reason)


def _decide(text: str, verb: Verb, reason: str) -> None:
    """Record the decision in the ledger, then resume the run. Raises HeadwayError when there is nothing to decide.

    The decision counts once it is recorded: a run that cannot be resumed now is resumed by `headway up` later.
    """
    decision = Decision(principal=os_user(), decision=verb, reason=reason, via="cli")
    owner = home_owner(home())
    with Ledger.open(ledger_url()) as ledger, Control(patience=PATIENCE) as control:
        found = ledger.releases.find(text)
        asked = ledger.approvals.waiting(found.id)
        if asked is not None and found.open:
            done = decide(ledger, owner, asked.id, decision)
        else:
            done = _decided_before(ledger, found, verb)
        if done.state == "waiting":
            so_far = approvals_so_far(ledger, owner, done)
            output.say(f"{found.name}: {done.environment} {verb} by {decision.principal}: {so_far}")
        else:
            output.say(f"{found.name}: {done.environment} {verb} by {done.decided_by}")
            if found.flow_run_id:
                _resume(control, found.flow_run_id)
        output.result(done.model_dump(mode="json"))


def _decided_before(ledger: Ledger, release: ReleaseRecord, verb: Verb) -> ApprovalRecord:
    """The same decision, of a release that has not continued yet. Raises HeadwayError."""
    done = ledger.approvals.last_decided(release.id)
    if done is not None and done.state == verb and release.state == "waiting":
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
