"""Recover from dead runs: end their releases, free their locks, roll back their rollouts, end expired approvals.

Prefect runs no code of ours when a suspended run expires or is cancelled, nor when a process is killed. The sweep
compares what the ledger has recorded with the state of the flow runs. It is safe to repeat.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from headway.domain import deployments
from headway.domain.errors import NotFound
from headway.ledger import ApprovalRecord, Ledger, ReleaseRecord, ReleaseState, RolloutRecord
from headway.rollout.strategies import TEARDOWN
from headway.service.controllers.base import Controller, collect_error
from headway.service.controllers.run_retries import MAX_ATTEMPTS, start_with_retries
from headway.service.prefect.client import Control

__all__ = ["Recovery", "sweep"]

RELEASE_STATES: dict[str, ReleaseState] = {"CANCELLED": "cancelled"}


class Recovery(Controller):
    """Calls `sweep`."""

    name = "sweep"
    interval = 2.0

    def __init__(self, ledger: Ledger, control: Control) -> None:
        super().__init__()
        self._ledger = ledger
        self._control = control

    async def reconcile(self) -> list[str]:
        return await asyncio.to_thread(sweep, self._ledger, self._control)


def sweep(ledger: Ledger, control: Control) -> list[str]:
    """Return a line for each thing that was done or is in progress.

    An error of one release or environment is one of the lines, and does not stop the others. Raises ServiceUnavailable
    when Prefect's server does not answer: the next sweep starts from what is recorded.
    """
    steps = (_end_approvals, _end_releases, _roll_back_unfinished, _start_contracts)
    return [line for step in steps for line in step(ledger, control)]


def _end_approvals(ledger: Ledger, control: Control) -> list[str]:
    """Close expired and void approvals, and resume every run that is suspended although its request is closed.

    The resumed run finds the decision in the ledger. So a decision counts although Prefect's server was away when it
    was made.
    """
    approvals = ledger.approvals
    closed = [*approvals.void_superseded(), *approvals.void_changed(), *approvals.expire(datetime.now(UTC))]
    done = [f"{ledger.releases.get(approval.release_id).name}: {_approval_end(approval)}" for approval in closed]
    for release in ledger.approvals.releases_to_resume():
        if release.flow_run_id is not None:
            with collect_error(release.name, done):
                suspended = control.flow_run(release.flow_run_id).type == "PAUSED"
                if suspended and ledger.approvals.waiting(release.id) is None:  # it has not asked again meanwhile
                    control.wake(release.flow_run_id)
    return done


def _approval_end(approval: ApprovalRecord) -> str:
    if approval.state == "void":
        return f"approval for {approval.environment} is void: {approval.reason or 'a newer commit was pushed'}"
    return (
        f"the freeze of {approval.environment} is over"
        if approval.frozen
        else f"approval for {approval.environment} expired"
    )


def _end_releases(ledger: Ledger, control: Control) -> list[str]:
    """End each release whose run ended without recording it."""
    done: list[str] = []
    for release in ledger.releases.unfinished():
        with collect_error(release.name, done):
            if ended := _run_end(release, control):
                state, message = ended
                ledger.releases.finish(release.id, state, message)
                ledger.locks.revoke(release.name)
                done.append(f"{release.name}: {state}: {message}")
    return done


def _run_end(release: ReleaseRecord, control: Control) -> tuple[ReleaseState, str] | None:
    if release.flow_run_id is None:
        return None
    try:
        run = control.flow_run(release.flow_run_id)
    except NotFound as gone:
        return "failed", gone.what
    if not run.final:
        return None
    return RELEASE_STATES.get(run.type, "failed"), run.error or f"its run ended as {run.state}"


def _roll_back_unfinished(ledger: Ledger, control: Control) -> list[str]:
    """Start a rollback run for each unfinished rollout whose lease has expired or was freed."""
    done: list[str] = []
    unfinished: dict[tuple[str, str], list[RolloutRecord]] = {}
    for rollout in ledger.rollouts.unfinished():
        unfinished.setdefault((rollout.app, rollout.environment), []).append(rollout)
    for (app, environment), rollouts in unfinished.items():
        holder = ledger.locks.holder(app, environment)
        if holder is not None and holder.token >= rollouts[-1].token and not holder.expired:
            continue
        if rollouts[-1].plan.strategy == TEARDOWN:
            continue
        subject = f"{app} {environment}"
        with collect_error(subject, done):
            if _start_rollback(rollouts[0], control):
                done.append(f"{subject}: rolling back: {_reason(rollouts[0])}")
                continue
            for rollout in rollouts:
                ledger.rollouts.finish(rollout.id, "halted")
            done.append(f"{subject}: rollback failed {MAX_ATTEMPTS} times: run `headway rollback {subject}`")
    return done


def _start_rollback(rollout: RolloutRecord, control: Control) -> bool:
    parameters = {
        "app": rollout.app,
        "environment": rollout.environment,
        "by": "headway",
        "reason": _reason(rollout),
        "only_unfinished": True,
    }
    return start_with_retries(deployments.ROLLBACK, parameters, f"recover-{rollout.id}", control)


def _start_contracts(ledger: Ledger, control: Control) -> list[str]:
    """Start the contract migrations that are due, in environments that are unlocked and have no unfinished rollout."""
    done: list[str] = []
    for change in ledger.schema_changes.due_contracts(datetime.now(UTC)):
        subject = f"{change.app} {change.environment}"
        holder = ledger.locks.holder(change.app, change.environment)
        if (holder and not holder.expired) or ledger.rollouts.incomplete(change.app, change.environment):
            continue
        with collect_error(subject, done):
            parameters = {"app": change.app, "environment": change.environment, "revision": change.revision}
            if start_with_retries(deployments.CONTRACT, parameters, f"contract-{change.id}", control):
                done.append(f"{subject}: running the contract migration of {change.revision}")
                continue
            ledger.schema_changes.finish(change.id, "failed", f"its run died {MAX_ATTEMPTS} times")
            done.append(f"{subject}: the contract migration of {change.revision} failed {MAX_ATTEMPTS} times")
    return done


def _reason(rollout: RolloutRecord) -> str:
    return f"the run of rollout {rollout.id} died"
