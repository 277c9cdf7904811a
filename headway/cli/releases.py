"""`headway release`, `approve`, `reject` and `rollback`: start a run, and follow it in the ledger."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from headway.cli.identity import me
from headway.cli.output import output
from headway.cli.status import waits_for
from headway.cli.wait import POLL, Waited, wait
from headway.domain.errors import HeadwayError, NotFound, UsageError
from headway.ledger import Ledger, ReleaseRecord, StageRecord
from headway.scm import git
from headway.service.prefect.client import Control, FlowRun
from headway.system.paths import ledger_url

__all__ = ["decide", "release", "roll_back"]

ASK = 10  # every so many polls the server is asked, for runs that die before they have a release
MARKS = {"running": "…", "waiting": "?", "passed": "✓", "cached": "✓", "skipped": "-", "failed": "✗", "cancelled": "✗"}


def release(path: Path, ref: str | None, to: str | None, *, yes: bool, follow: bool) -> int:
    """Returns the exit code."""
    local = git.inspect(path, ref)
    if ref is None:
        from headway import config

        config.load(local.root).release_path(to)  # what is wrong with it is known before anything starts
    with Control() as control, Ledger.open(ledger_url()) as ledger:
        asked = {"repo": str(local.root), "ref": local.sha, "to": to, "yes": yes, "by": me(local.root)}
        run_id = control.start("release/main", asked)
        output.say(f"{local.sha[:7]}: {control.run_url(run_id)}")
        if not follow:
            output.result({"flow_run_id": run_id, "url": control.run_url(run_id)})
            return 0
        try:
            return _follow(control, ledger, run_id)
        except KeyboardInterrupt:
            output.say(
                f"the release goes on; cancelled in the UI, it brings back what it changed: {control.run_url(run_id)}"
            )
            raise


def decide(text: str, decision: Literal["approved", "rejected"], by: str, reason: str) -> None:
    """Enter the word in the ledger, then wake the run. Raises HeadwayError when there is nothing to decide."""
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        found = ledger.find_release(text)
        asked = ledger.waiting_approval(found.id)
        if asked is None:
            raise HeadwayError(
                f"{found.name} waits for no approval: it is {found.state}",
                f"it {waits}" if (waits := waits_for(ledger, found)) else f"see headway history {found.app}",
            )
        done = ledger.decide(asked.id, decision, by=by or me(Path()), reason=reason, via="cli")
        if found.flow_run_id:
            word = "approve" if decision == "approved" else "reject"
            control.resume(found.flow_run_id, {"decision": word, "by": done.decided_by, "reason": reason})
        output.say(f"{found.name}: {done.environment} {decision} by {done.decided_by}")
        output.result(done.model_dump(mode="json"))


def roll_back(
    app: str, environment: str, to: str | None, reason: str, by: str, *, force: bool = False, revert: bool = False
) -> int:
    """Returns the exit code."""
    if force and not reason.strip():
        raise UsageError("--force goes past what keeps a version from coming back", "say why: --reason WHY")
    with Ledger.open(ledger_url()) as ledger, Control() as control:
        if environment not in ledger.environments(app):
            there = ", ".join(ledger.environments(app)) if app in ledger.apps() else f"apps: {', '.join(ledger.apps())}"
            raise NotFound(f"{app} was never released to {environment}", f"there are: {there or 'none'}")
        if to is not None:
            ledger.revision(app, to, environment=environment)
        run_id = control.start(
            "rollback/main",
            {"app": app, "environment": environment, "to": to, "reason": reason, "by": by or me(Path())}
            | {"force": force, "revert": revert},
        )
        run = wait(control, run_id)
        live = ledger.live(app, environment)
        if run.type != "COMPLETED":
            raise HeadwayError(f"{app} {environment}: {run.message}", f"look at it: {control.run_url(run_id)}")
        output.say(f"{app} {environment}: {live or 'nothing'} is live")
        output.result({"app": app, "environment": environment, "live": live, "flow_run_id": run_id})
        return 0


def _follow(control: Control, ledger: Ledger, run_id: str) -> int:
    shown: dict[str, str] = {}
    waited = Waited(control, run_id)
    with _table() as table:
        for polls in range(10**9):
            found = ledger.release_of_run(run_id)
            if found:
                stages = ledger.stages(found.id)
                table.update(_rows(stages)) if table else _say_changes(stages, shown)
                if found.state == "waiting" or not found.open:
                    break
            if polls % ASK == 0:
                run = control.flow_run(run_id)
                if run.final:
                    found = ledger.release_of_run(run_id)
                    break
                waited.look(run)
            time.sleep(POLL)
    if found is None:
        raise _died(run, control)
    return _conclude(found, ledger, control, run_id)


def _conclude(found: ReleaseRecord, ledger: Ledger, control: Control, run_id: str) -> int:
    if found.open and found.state != "waiting":
        raise _died(control.flow_run(run_id), control)
    took = ((found.finished_at or found.started_at) - found.started_at).total_seconds()
    stages = ledger.stages(found.id)
    users = ledger.users(found.id)
    code = {"succeeded": 0, "waiting": 3}.get(found.state, 1)
    output.result(
        found.model_dump(mode="json")
        | {"name": found.name, "exit_code": code, "stages": [stage.model_dump(mode="json") for stage in stages]}
        | {"users": users.model_dump(mode="json") if users else None}
    )
    if found.state == "waiting":
        output.say(f"{found.name} {waits_for(ledger, found)}, or in the UI: {control.run_url(run_id)}")
    elif code:
        output.say(f"{found.name} {found.state.replace('_', ' ')} after {took:.1f} s: {found.reason}")
        output.say(*([f"  {users}"] if users else []), f"  look at it: {control.run_url(run_id)}")
    else:
        output.say(f"{found.name} succeeded in {took:.1f} s: {(found.sha or '')[:7]} is live")
        output.say(*([f"  {users}"] if users else []))
    return code


def _died(run: FlowRun, control: Control) -> HeadwayError:
    return HeadwayError(run.message or f"the run ended as {run.state}", f"look at it: {control.run_url(run.id)}")


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
