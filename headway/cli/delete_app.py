"""`headway app delete`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from headway.cli.output import output
from headway.cli.status import unknown_app
from headway.cli.wait import wait
from headway.domain import deployments
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import Ledger
from headway.service.prefect.client import Control
from headway.service.prefect.start_as import start_as
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["delete_app"]


def delete_app(app: str, environment: str | None, *, yes: bool) -> None:
    """Delete an app or an environment after a confirmation. Raises NotFound, UsageError, HeadwayError."""
    with Ledger.open(ledger_url()) as ledger:
        _require_deletable(ledger, app, environment)
        what = f"{app} {environment}" if environment else app
        output.say(f"{what} will be deleted, with:", *(f"  {line}" for line in _contents(ledger, app, environment)))
        if not yes and not _confirmed(what):
            raise UsageError(f"{what} was not deleted", "confirm it with its name, or with --yes")
        with Control() as control:
            run_id = start_as(os_user(), ledger, control, deployments.DELETE, {"app": app, "environment": environment})
            run = wait(control, run_id)
            if run.type != "COMPLETED":
                raise HeadwayError(f"{what}: {run.error or run.state}", f"details: {control.run_url(run_id)}")
    output.say(f"{what} is deleted")
    output.result({"app": app, "environment": environment, "flow_run_id": run_id})


def _require_deletable(ledger: Ledger, app: str, environment: str | None) -> None:
    known = ledger.rollouts.environments(app)
    if app not in {*ledger.releases.apps(), *(one.name for one in ledger.apps.all())}:
        raise unknown_app(app, ledger)
    if environment and environment not in known:
        raise NotFound(f"{app} was never released to {environment}", f"it is in: {', '.join(known) or 'none'}")
    if going := [one.name for one in ledger.releases.unfinished() if one.app == app]:
        raise UsageError(f"{going[0]} is in progress", f"headway cancel {going[0]}")
    if previews := ledger.previews.active(app):
        number = previews[0].number
        raise UsageError(f"{previews[0].name} has a preview", f"headway preview {app} {number} --teardown")


def _contents(ledger: Ledger, app: str, environment: str | None) -> Iterator[str]:
    for each in [environment] if environment else ledger.rollouts.environments(app):
        yield f"{each}: {ledger.rollouts.live(app, each) or 'nothing'} is live"
    if environment is None:
        yield "its releases, their checks, approvals and readings"
        yield from ("its registration, and the events of its webhook" for one in ledger.apps.all() if one.name == app)


def _confirmed(what: str) -> bool:
    if output.json or not sys.stdin.isatty():
        return False
    answer: str = typer.prompt(f"Type {what} to delete it", default="", show_default=False)
    return answer.strip() == what
