"""`headway previews` and `headway preview`: the preview environments of pull requests."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from headway.cli.help_text import examples
from headway.cli.options import AppArgument, Json, Reason
from headway.cli.output import output
from headway.cli.wait import wait
from headway.domain import deployments
from headway.domain.ages import format_age
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import Delivery, Ledger, PreviewRecord
from headway.policy.previews import name as preview_name
from headway.service.controllers.preview_reconciler import event_of
from headway.service.pending import pending_decision
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.service.prefect.start_as import start_as
from headway.system.os_user import os_user
from headway.system.paths import ledger_url

__all__ = ["preview", "previews"]


@examples(
    "headway previews",
    "headway previews shop",
)
def previews(
    app: Annotated[str | None, typer.Argument(help="Name of an app; default: all apps")] = None,
    _json: Json = False,
) -> None:
    """List preview environments: URL, age and expiry."""
    with Ledger.open(ledger_url()) as ledger:
        registered = {one.name for one in ledger.apps.all()}
        known = [_row(ledger, one, registered) for one in ledger.previews.active(app)]
    if not known:
        output.say("no preview environments: pull requests of registered apps create them")
    for one in known:
        output.say(
            f"{one['app']:24} {one['head'][:7]} {one['url'] or 'nothing deployed'}  {one['age']} old{one['until']}"
        )
        output.say(*([f"{'':24}   {one['going']}"] if one["going"] else []))
        if one["given_up_at"]:
            output.say(f"{'':24}   the teardown failed repeatedly: see the runs of the flow teardown in the Prefect UI")
        if one["orphan"]:
            take = f"headway preview {one['of']} {one['number']} --teardown"
            output.say(f"{'':24}   an orphan: {one['of']} is no longer registered: {take}")
    output.result(known)


def _row(ledger: Ledger, preview: PreviewRecord, registered: set[str]) -> dict[str, Any]:
    going = [one for one in ledger.releases.unfinished() if one.app == preview.app]
    return preview.model_dump(mode="json", exclude={"mark", "reported", "closed_at", "reason"}) | {
        "age": format_age(datetime.now(UTC) - preview.opened_at),
        "until": f", until {preview.expires_at:%Y-%m-%d %H:%M} UTC" if preview.expires_at else "",
        "going": "; ".join(f"{one.name} {one.state} {pending_decision(ledger, one)}".rstrip() for one in going),
        "orphan": preview.of not in registered,
    }


@examples(
    "headway preview shop 42",
    "headway preview shop 42 --teardown",
)
def preview(
    app: AppArgument,
    number: Annotated[int, typer.Argument(help="Number of the pull request")],
    teardown: Annotated[
        bool, typer.Option("--teardown", help="Tear the preview down, even if the pull request is open")
    ] = False,
    reason: Reason = "",
    _json: Json = False,
) -> None:
    """Create or tear down the preview environment of a pull request.

    An existing preview is updated to the head of the pull request.
    """
    if teardown:
        _teardown(app, number, reason)
    else:
        _start(app, number)


def _start(app: str, number: int) -> None:
    """Enter the pull request as if a webhook had come. Raises UsageError when no git host can be asked about it."""
    with Ledger.open(ledger_url()) as ledger:
        registered = ledger.apps.get(app)
        if registered.reports is None:
            raise UsageError(
                f"{app} has no git host to read pull request {number} from",
                "push to the pull request, or name the block of its git host: headway app add REPO --reports TYPE/NAME",
            )
        host = asyncio.run(connections().load_git_host(registered.reports))
        pull = host.pull_request(registered.path, number)
        if pull is None or not pull.open:
            raise NotFound(
                f"{registered.reports}: {app} has no open pull request {number}",
                "see the pull requests at the git host",
            )
        event = event_of(registered, pull, by=str(os_user()), again=True)
        ledger.deliveries.receive([Delivery(app=app, delivery=f"by-hand-{uuid.uuid4().hex}", event=event)])
    output.say(f"{app} pull request {number}: requested; headway app events {app} shows the result")
    output.result({"app": app, "number": number, "head": pull.head})


def _teardown(app: str, number: int, reason: str) -> None:
    """Tear the preview down and wait for the run. Raises NotFound when there is no preview."""
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        preview = ledger.previews.get(preview_name(app, number))
        if preview is None or not preview.active:
            raise NotFound(f"{app}: pull request {number} has no preview environment", "list them: headway previews")
        asked = {"app": app, "number": number, "reason": reason}
        run_id = start_as(os_user(), ledger, control, deployments.TEARDOWN, asked)
        run = wait(control, run_id)
        if run.type != "COMPLETED":
            raise HeadwayError(f"{preview.app}: {run.error or run.state}", f"details: {control.run_url(run_id)}")
    output.say(f"{preview.app} is torn down")
    output.result({"app": preview.app, "flow_run_id": run_id})
