"""`headway previews` and `headway preview`: what stands for which pull request; one more, or one less."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headway.cli.identity import me
from headway.cli.output import output
from headway.cli.status import waits_for
from headway.cli.wait import wait
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import Delivery, Ledger, PreviewRecord
from headway.policy import previews
from headway.service.controllers.preview_reconciler import event_of
from headway.service.prefect.client import Control
from headway.system.paths import ledger_url

__all__ = ["show", "start", "teardown"]


def show(app: str | None) -> None:
    """Those that stand."""
    with Ledger.open(ledger_url()) as ledger:
        registered = {one.name for one in ledger.registered_apps()}
        known = [_known(ledger, one, registered) for one in ledger.previews(app)]
    if not known:
        output.say("no preview stands: they come with pull requests of registered apps")
    for one in known:
        output.say(
            f"{one['app']:24} {one['head'][:7]} {one['url'] or 'nothing deployed'}  {one['age']} old{one['until']}"
        )
        output.say(*([f"{'':24}   {one['going']}"] if one["going"] else []))
        if one["given_up_at"]:
            output.say(f"{'':24}   it cannot be torn down, and needs a person: look at the runs of teardown")
        if one["orphan"]:
            take = f"headway preview {one['of']} {one['number']} --teardown"
            output.say(f"{'':24}   an orphan: {one['of']} is registered no more: {take}")
    output.result(known)


def _known(ledger: Ledger, preview: PreviewRecord, registered: set[str]) -> dict[str, Any]:
    going = [one for one in ledger.open_releases() if one.app == preview.app]
    return preview.model_dump(mode="json", exclude={"mark", "told", "closed_at", "reason"}) | {
        "age": _words((datetime.now(UTC) - preview.opened_at).total_seconds()),
        "until": f", until {preview.expires_at:%Y-%m-%d %H:%M} UTC" if preview.expires_at else "",
        "going": "; ".join(f"{one.name} {one.state} {waits_for(ledger, one)}".rstrip() for one in going),
        "orphan": preview.of not in registered,
    }


def _words(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours / 24:.0f} d" if hours >= 48 else f"{hours:.0f} h" if hours >= 2 else f"{seconds / 60:.0f} min"


def start(app: str, number: int) -> None:
    """Ask for it as if a webhook had come. Raises UsageError when nobody can say how the pull request is."""
    import asyncio

    from headway.service.prefect.connections import connections

    with Ledger.open(ledger_url()) as ledger:
        registered = ledger.registered_app(app)
        if registered.reports is None:
            raise UsageError(
                f"{app} has no git host that can be asked about pull request {number}",
                "push to it, or name a block of its host: headway app add REPO --reports TYPE/NAME",
            )
        host = asyncio.run(connections().load_git_host(registered.reports))
        pull = host.pull_request(registered.path, number)
        if pull is None or not pull.open:
            raise NotFound(f"{registered.reports}: {app} has no open pull request {number}", "see the host's own list")
        event = event_of(registered, pull, by=me(Path()), again=True)
        ledger.receive([Delivery(app=app, delivery=f"by-hand-{uuid.uuid4().hex}", event=event)])
    output.say(f"{app} pull request {number}: asked for; headway app events {app} says what becomes of it")
    output.result({"app": app, "number": number, "head": pull.head})


def teardown(app: str, number: int, reason: str) -> None:
    """Tear it down, and wait for that. Raises NotFound when it does not stand."""
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        preview = ledger.preview(previews.name(app, number))
        if preview is None or not preview.stands:
            raise NotFound(f"{app}: no preview of pull request {number} stands", "see headway previews")
        run_id = control.start("teardown/main", {"app": app, "number": number, "reason": reason, "by": me(Path())})
        run = wait(control, run_id)
        if run.type != "COMPLETED":
            raise HeadwayError(f"{preview.app}: {run.message}", f"look at it: {control.run_url(run_id)}")
    output.say(f"{preview.app} is torn down")
    output.result({"app": preview.app, "flow_run_id": run_id})
