"""Closes what nobody closed: runs that died, locks that leaked, approvals that expired.

Prefect runs no code of ours when a suspended run expires or is cancelled, nor when a process is killed. The ledger
knows what was begun; this sweep compares it with what has become of the runs, and is safe to repeat.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from headway.domain.errors import HeadwayError, NotFound, ServiceUnavailable
from headway.domain.ports import Target
from headway.ledger import ApprovalRecord, Ledger, ReleaseRecord, ReleaseState, RolloutRecord
from headway.rollout.strategies import TEARDOWN
from headway.service.prefect.client import Control

__all__ = ["TRIES", "attempt", "revive", "sweep"]

TRIES = 3
RETRY = 60.0  # seconds between the end of a try that failed and the next
WAY_BACK = "headway rollback"
NOBODY = {"decision": "reject", "by": "headway", "reason": "nobody decided in time"}
ENDED: dict[str, ReleaseState] = {"CANCELLED": "cancelled"}
RAISED = re.compile(r"^Flow run encountered an exception: (\w+: )?")


def sweep(ledger: Ledger, control: Control) -> list[str]:
    """One round; returns a line for each thing that was done or is going on.

    What cannot be done for one release or environment is said, and does not keep the others waiting. Raises
    ServiceUnavailable when the server is away: the next round finds everything as it was.
    """
    rounds = (_expire, _close, _bring_back, _contract)
    return [line for round_ in rounds for line in round_(ledger, control)]


async def revive(ledger: Ledger, load_target: Callable[[str], Awaitable[Target]]) -> list[str]:
    """Have every target bring back what a machine that restarted, or a supervisor that was killed, took with it."""
    done: list[str] = []
    targets: dict[str, Target] = {}
    for app in ledger.releases.apps():
        for environment in ledger.rollouts.environments(app):
            live = ledger.rollouts.live(app, environment)
            if live is None:
                continue
            _, spec = ledger.revisions.find(app, live, environment=environment)
            with _said(f"{app} {environment}", done):
                target = targets.get(spec.target) or await load_target(spec.target)
                targets[spec.target] = target
                if await asyncio.to_thread(target.revive, app):
                    done.append(f"{app} {environment}: was not running on {spec.target}: started again")
    return done


def _expire(ledger: Ledger, control: Control) -> list[str]:
    """The run is woken and finds out: an approval that is expired or void ends its release, a freeze that is over lets
    it go on.
    """
    closed = [*ledger.approvals.void_superseded(), *ledger.approvals.expire(datetime.now(UTC))]
    done = [f"{ledger.releases.get(asked.release_id).name}: {_over(asked)}" for asked in closed]
    for release in ledger.approvals.releases_to_resume():
        if release.flow_run_id is not None:
            with _said(release.name, done):
                if control.flow_run(release.flow_run_id).type == "PAUSED":
                    control.resume(release.flow_run_id, NOBODY)
    return done


def _over(asked: ApprovalRecord) -> str:
    if asked.state == "void":
        return f"a newer commit was pushed: what waits for {asked.environment} is void"
    return (
        f"{asked.environment} is not frozen any more" if asked.frozen else f"approval for {asked.environment} expired"
    )


@contextmanager
def _said(name: str, lines: list[str]) -> Iterator[None]:
    try:
        yield
    except ServiceUnavailable:
        raise
    except HeadwayError as error:
        lines.append(f"{name}: {error.what}")


def _close(ledger: Ledger, control: Control) -> list[str]:
    """A release whose run has ended without a word has ended too."""
    done: list[str] = []
    for release in ledger.releases.unfinished():
        with _said(release.name, done):
            if ended := _ended(release, control):
                state, message = ended
                ledger.releases.finish(release.id, state, message)
                ledger.locks.revoke(release.name)
                done.append(f"{release.name}: {state}: {message}")
    return done


def _ended(release: ReleaseRecord, control: Control) -> tuple[ReleaseState, str] | None:
    if release.flow_run_id is None:
        return None
    try:
        run = control.flow_run(release.flow_run_id)
    except NotFound as gone:
        return "failed", gone.what
    if not run.final:
        return None
    return ENDED.get(run.type, "failed"), _said_last(run.message) or f"its run ended as {run.state}"


def _said_last(message: str) -> str:
    """What an error of a run says, without its class and what Prefect puts in front; the hint is in the run's log."""
    return next(iter(RAISED.sub("", message).strip().splitlines()), "")


def _bring_back(ledger: Ledger, control: Control) -> list[str]:
    """A rollout that nobody is at any more (its lease has run out or was freed) is undone by a rollback run."""
    done: list[str] = []
    begun: dict[tuple[str, str], list[RolloutRecord]] = {}
    for rollout in ledger.rollouts.unfinished():
        begun.setdefault((rollout.app, rollout.environment), []).append(rollout)
    for (app, environment), rollouts in begun.items():
        holder = ledger.locks.holder(app, environment)
        if holder is not None and holder.token >= rollouts[-1].token and not holder.expired:
            continue
        if rollouts[-1].plan.strategy == TEARDOWN:
            continue
        place = f"{app} {environment}"
        with _said(place, done):
            if _try_rollback(rollouts[0], control):
                done.append(f"{place}: bringing it back: {_reason(rollouts[0])}")
                continue
            for rollout in rollouts:
                ledger.rollouts.finish(rollout.id, "halted")
            done.append(f"{place}: could not be brought back in {TRIES} tries: it needs a person, {WAY_BACK} {place}")
    return done


def _try_rollback(rollout: RolloutRecord, control: Control) -> bool:
    asked = {
        "app": rollout.app,
        "environment": rollout.environment,
        "by": "headway",
        "reason": _reason(rollout),
        "only_unfinished": True,
    }
    return attempt("rollback/main", asked, f"recover-{rollout.id}", control)


def attempt(deployment: str, parameters: dict[str, Any], key: str, control: Control) -> bool:
    """Have a run going, or one that will be tried after a pause; False when every try has failed.

    The key names the try: whoever asks for it again gets the same run.
    """
    for number in range(TRIES):
        run_id = control.start(deployment, parameters, idempotency_key=f"{key}-{number}")
        run = control.flow_run(run_id)
        if not run.final or (run.ended and datetime.now(UTC) < run.ended + timedelta(seconds=RETRY)):
            return True
    return False


def _contract(ledger: Ledger, control: Control) -> list[str]:
    """Have the contracts done whose time has come, where nobody is at work and nothing was left half-way."""
    done: list[str] = []
    for change in ledger.schema_changes.due_contracts(datetime.now(UTC)):
        place = f"{change.app} {change.environment}"
        holder = ledger.locks.holder(change.app, change.environment)
        if (holder and not holder.expired) or ledger.rollouts.incomplete(change.app, change.environment):
            continue
        with _said(place, done):
            asked = {"app": change.app, "environment": change.environment, "revision": change.revision}
            if attempt("contract/main", asked, f"contract-{change.id}", control):
                done.append(f"{place}: the contract of {change.revision} is due")
                continue
            ledger.schema_changes.finish(change.id, "failed", f"its run ended without a word, {TRIES} times")
            done.append(f"{place}: the contract of {change.revision} could not be done in {TRIES} tries")
    return done


def _reason(rollout: RolloutRecord) -> str:
    return f"the run of rollout {rollout.id} died"
