"""Follow a release: print its stages until it ends or waits for a person."""

from __future__ import annotations

import itertools
import time
from contextlib import nullcontext
from typing import Any

from headway.cli.output import output
from headway.cli.wait import POLL, WorkerNotice
from headway.domain.errors import HeadwayError
from headway.ledger import Ledger, ReleaseRecord, StageRecord
from headway.service.pending import pending_decision
from headway.service.prefect.client import Control, FlowRun

__all__ = ["conclude", "follow"]

SERVER_POLL = 10  # polls of the ledger between two of the server, for runs that end before they have a release
MARKS = {"running": "…", "waiting": "?", "passed": "✓", "cached": "✓", "skipped": "-", "failed": "✗", "cancelled": "-"}
COLOURS = {"passed": "green", "cached": "green", "failed": "red", "waiting": "yellow", "cancelled": "yellow"}


def follow(control: Control, ledger: Ledger, run_id: str) -> int:
    """Print the stages of the release of a run until it ends or waits for a person; return the exit code."""
    try:
        found = _wait(control, ledger, run_id)
    except KeyboardInterrupt:
        release = ledger.releases.by_run(run_id)
        cancel = f"headway cancel {release.name}" if release else f"cancel it at {control.run_url(run_id)}"
        output.say(f"the release goes on; to cancel it: {cancel}")
        raise
    return conclude(ledger, found, control.run_url(run_id))


def _wait(control: Control, ledger: Ledger, run_id: str) -> ReleaseRecord:
    """Raises HeadwayError when the run ends before it has a release, or without ending it."""
    shown: dict[str, str] = {}
    notice = WorkerNotice(control, run_id)
    with _table() as table:
        for polls in itertools.count():
            found = ledger.releases.by_run(run_id)
            if found:
                stages = ledger.stages.by_release(found.id)
                table.update(_rows(stages)) if table else _say_changes(stages, shown)
                if not found.open or (found.state == "waiting" and pending_decision(ledger, found)):
                    return found
            if polls % SERVER_POLL == 0:
                run = control.flow_run(run_id)
                if run.final:
                    break
                notice.update(run)
            time.sleep(POLL)
    found = ledger.releases.by_run(run_id)
    if found is None or found.open:
        raise _run_failed(run, control)
    return found


def conclude(ledger: Ledger, found: ReleaseRecord, run_url: str) -> int:
    """Print how the release ended, or what it waits for; return the exit code. The last line is the app's URL."""
    took = ((found.finished_at or found.started_at) - found.started_at).total_seconds()
    stages = ledger.stages.by_release(found.id)
    users = ledger.rollouts.user_requests(found.id)
    code = {"succeeded": 0, "waiting": 3}.get(found.state, 1)
    urls = ledger.rollouts.urls(found.id)
    output.result(
        found.model_dump(mode="json")
        | {"name": found.name, "exit_code": code, "stages": [stage.model_dump(mode="json") for stage in stages]}
        | {"users": users.model_dump(mode="json") if users else None, "urls": urls}
    )
    if found.state == "waiting":
        waits = output.style(f"{found.name} {pending_decision(ledger, found)}", "yellow")
        output.say(f"{waits}, or in the UI: {run_url}")
    elif code:
        ended = found.state.replace("_", " ")
        output.say(f"{output.style(f'{found.name} {ended}', 'red')} after {took:.1f} s: {found.reason}")
        output.say(*([f"  {users}"] if users else []), f"  details: {run_url}")
    else:
        done = output.style(f"{found.name} succeeded", "green")
        output.say(f"{done} in {took:.1f} s: {(found.sha or '')[:7]} is live")
        output.say(*([f"  {users}"] if users else []))
        output.say(*(f"{environment}: {url}" for environment, url in urls.items()))
    return code


def _run_failed(run: FlowRun, control: Control) -> HeadwayError:
    return HeadwayError(run.error or f"the run ended as {run.state}", f"details: {control.run_url(run.id)}")


def _say_changes(stages: list[StageRecord], shown: dict[str, str]) -> None:
    for stage in stages:
        if stage.state != shown.get(stage.name) and stage.state != "running":
            shown[stage.name] = stage.state
            mark = output.style(MARKS[stage.state], COLOURS.get(stage.state, "dim"))
            output.say(f"{mark} {stage.name:22} {stage.state:9} {stage.seconds:6.1f} s  {stage.detail}".rstrip())


def _table() -> Any:
    """A table that redraws itself, or None. rich is imported only where there is a terminal."""
    if not output.live:
        return nullcontext()
    from rich.live import Live

    return Live(refresh_per_second=8)


def _rows(stages: list[StageRecord]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for stage in stages:
        mark = Text(MARKS[stage.state], style=COLOURS.get(stage.state, "dim"))
        table.add_row(mark, stage.name, stage.state, f"{stage.seconds:.1f} s", Text(stage.detail))
    return table
