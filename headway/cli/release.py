"""`headway release`."""

from __future__ import annotations

import itertools
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from headway import config
from headway.cli.identity import current_user
from headway.cli.options import Json, PathArgument
from headway.cli.output import output
from headway.cli.pending import pending_decision
from headway.cli.wait import POLL, WorkerNotice
from headway.domain.errors import HeadwayError
from headway.ledger import Ledger, ReleaseRecord, StageRecord
from headway.scm import git
from headway.service.prefect.client import Control, FlowRun
from headway.system.paths import ledger_url

__all__ = ["release"]

SERVER_POLL = 10  # polls of the ledger between two of the server, for runs that end before they have a release
MARKS = {"running": "…", "waiting": "?", "passed": "✓", "cached": "✓", "skipped": "-", "failed": "✗", "cancelled": "✗"}


def release(
    path: PathArgument = Path(),
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the checked-out commit")] = None,
    to: Annotated[str | None, typer.Option(help="Last environment to release to; default: all")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not wait for approvals; the record says so")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for the release and print its progress")] = True,
    _json: Json = False,
) -> None:
    """Release a commit and follow its progress."""
    local = git.inspect(path, ref)
    if ref is None:
        config.load(local.root).release_path(to)  # errors in headway.yaml are reported before anything starts
    with Control() as control, Ledger.open(ledger_url()) as ledger:
        parameters = {"repo": str(local.root), "ref": local.sha, "to": to, "yes": yes, "by": current_user(local.root)}
        run_id = control.start("release/main", parameters)
        output.say(f"{local.sha[:7]}: {control.run_url(run_id)}")
        if not follow:
            output.result({"flow_run_id": run_id, "url": control.run_url(run_id)})
            return
        try:
            exit_code = _follow(control, ledger, run_id)
        except KeyboardInterrupt:
            output.say(f"the release goes on; cancel it in the Prefect UI to roll it back: {control.run_url(run_id)}")
            raise
    raise typer.Exit(exit_code)


def _follow(control: Control, ledger: Ledger, run_id: str) -> int:
    """Print the stages of a release until it ends or waits for a person; return the exit code."""
    shown: dict[str, str] = {}
    notice = WorkerNotice(control, run_id)
    with _table() as table:
        for polls in itertools.count():
            found = ledger.releases.by_run(run_id)
            if found:
                stages = ledger.stages.by_release(found.id)
                table.update(_rows(stages)) if table else _say_changes(stages, shown)
                if found.state == "waiting" or not found.open:
                    break
            if polls % SERVER_POLL == 0:
                run = control.flow_run(run_id)
                if run.final:
                    found = ledger.releases.by_run(run_id)
                    break
                notice.update(run)
            time.sleep(POLL)
    if found is None:
        raise _run_failed(run, control)
    return _conclude(found, ledger, control, run_id)


def _conclude(found: ReleaseRecord, ledger: Ledger, control: Control, run_id: str) -> int:
    if found.open and found.state != "waiting":
        raise _run_failed(control.flow_run(run_id), control)
    took = ((found.finished_at or found.started_at) - found.started_at).total_seconds()
    stages = ledger.stages.by_release(found.id)
    users = ledger.rollouts.user_requests(found.id)
    code = {"succeeded": 0, "waiting": 3}.get(found.state, 1)
    output.result(
        found.model_dump(mode="json")
        | {"name": found.name, "exit_code": code, "stages": [stage.model_dump(mode="json") for stage in stages]}
        | {"users": users.model_dump(mode="json") if users else None}
    )
    if found.state == "waiting":
        output.say(f"{found.name} {pending_decision(ledger, found)}, or in the UI: {control.run_url(run_id)}")
    elif code:
        output.say(f"{found.name} {found.state.replace('_', ' ')} after {took:.1f} s: {found.reason}")
        output.say(*([f"  {users}"] if users else []), f"  details: {control.run_url(run_id)}")
    else:
        output.say(f"{found.name} succeeded in {took:.1f} s: {(found.sha or '')[:7]} is live")
        output.say(*([f"  {users}"] if users else []))
    return code


def _run_failed(run: FlowRun, control: Control) -> HeadwayError:
    return HeadwayError(run.message or f"the run ended as {run.state}", f"details: {control.run_url(run.id)}")


def _say_changes(stages: list[StageRecord], shown: dict[str, str]) -> None:
    for stage in stages:
        if stage.state != shown.get(stage.name) and stage.state != "running":
            shown[stage.name] = stage.state
            output.say(f"{MARKS[stage.state]} {stage.name:22} {stage.state:9} {stage.seconds:6.1f} s  {stage.detail}")


def _table() -> Any:
    """A table that redraws itself, or None. rich is imported only where there is a terminal."""
    if not output.live:
        return nullcontext()
    from rich.live import Live

    return Live(refresh_per_second=8)


def _rows(stages: list[StageRecord]) -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for stage in stages:
        table.add_row(MARKS[stage.state], stage.name, stage.state, f"{stage.seconds:.1f} s", stage.detail)
    return table
