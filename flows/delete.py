"""Delete: an app, or one of its environments, with everything that its targets and the ledger keep of it."""

from __future__ import annotations

from prefect import flow

from flows.teardown import clear_all
from headway.domain.access import Action
from tasks.environment_lock import hold
from tasks.release_record import open_ledger
from tasks.requester import requested_by, require

__all__ = ["delete"]


@flow(name="delete", flow_run_name="delete {app}")
async def delete(app: str, environment: str | None = None, by: str = "") -> None:
    """Stop an app, and remove what its targets and the ledger keep of it. It cannot be undone.

    An environment whose target fails stays in the ledger, and with it the app.

    Args:
        app: name of the app, as in its headway.yaml
        environment: the one to delete; every one, and the app itself, by default
        by: ignored when a person starts the run; services of Headway name what they start it for
    """
    with open_ledger() as ledger:
        require(ledger, Action.ADMIN, app)
        by = requested_by(ledger, by) or "headway"
        reason, holder = f"deleted by {by}", f"delete by {by}"
        for each in [environment] if environment else ledger.rollouts.environments(app):
            async with hold(ledger, app, each, holder=holder, revision="nothing") as session:
                await clear_all(session, reason)
            ledger.removal.environment(app, each, by=by)
        if environment is None:
            ledger.removal.app(app, by=by)
