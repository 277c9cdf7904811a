"""`headway cancel`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from headway.cli.help_text import examples
from headway.cli.options import By, Json, Reason, ReleaseArgument
from headway.cli.output import output
from headway.cli.wait import POLL
from headway.domain.errors import HeadwayError, UsageError
from headway.ledger import Ledger, ReleaseRecord
from headway.service.prefect.client import Control
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["cancel"]

DEADLINE = 300.0  # seconds; a rollback drains, and a run that died is found after a minute


@examples('headway cancel shop#14 --reason "wrong branch"')
def cancel(
    run: ReleaseArgument,
    _by: By = "",
    reason: Reason = "",
    follow: Annotated[bool, typer.Option(help="Wait for the end of the release")] = True,
    _json: Json = False,
) -> None:
    """Cancel a release in progress and roll back what it had begun.

    An environment that it has finished keeps the new revision. To end a rollout without ending its release, use
    `headway abort`.
    """
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        found = ledger.releases.find(run)
        if not found.open or found.flow_run_id is None:
            raise UsageError(
                f"{found.name} cannot be cancelled: it is {found.state.replace('_', ' ')}",
                f"to go back to an earlier revision: headway rollback {found.app} ENVIRONMENT",
            )
        ledger.releases.update(found.id, reason=f"cancelled by {os_user()}{f': {reason}' if reason else ''}")
        control.cancel(found.flow_run_id)
        output.say(f"{found.name}: cancelling; environments in the middle of a rollout are rolled back")
        if follow:
            found = _ended(ledger, found.id)
            output.say(found.summary)
    output.result(found.model_dump(mode="json") | {"name": found.name})


def _ended(ledger: Ledger, release_id: str) -> ReleaseRecord:
    """The release after its end. Raises HeadwayError when it takes too long, or ended in another way than cancelled."""
    deadline = time.monotonic() + DEADLINE
    while (found := ledger.releases.get(release_id)).open:
        if time.monotonic() > deadline:
            raise HeadwayError(f"{found.name} is still ending after {DEADLINE:g} s", f"headway watch {found.name}")
        time.sleep(POLL)
    if found.state != "cancelled":
        raise HeadwayError(f"{found.name} ended before it was cancelled: {found.summary}", "see headway status")
    return found
