"""Closes what nobody closed: runs that died, locks that leaked, approvals that expired.

Prefect runs no code of ours when a suspended run expires or is cancelled, nor when a process is killed. The ledger
knows what was begun; this sweep compares it with what has become of the runs, and is safe to repeat.
"""

from __future__ import annotations

from datetime import UTC, datetime

from headway.control import Control
from headway.errors import HeadwayError, NotFound
from headway.ledger import Ledger, ReleaseRecord, ReleaseState

__all__ = ["sweep"]

TRIES = 3
RETRY = 60.0  # seconds; the same key within them is the same run
ENDED: dict[str, ReleaseState] = {"CANCELLED": "cancelled"}


def sweep(ledger: Ledger, control: Control) -> list[str]:
    """One round; returns a line for each thing that was done."""
    return [*_expire(ledger, control), *_close(ledger, control), *_bring_back(ledger, control)]


def _expire(ledger: Ledger, control: Control) -> list[str]:
    """An expired approval ends its release: the run is woken, finds that out, and closes itself."""
    done = []
    for asked in ledger.expire_approvals(datetime.now(UTC)):
        release = ledger.release(asked.release_id)
        if release.flow_run_id is not None:
            try:
                control.resume(
                    release.flow_run_id, {"decision": "reject", "by": "headway", "reason": "nobody decided in time"}
                )
            except HeadwayError as gone:
                done.append(f"{release.name}: {gone.what}")
        done.append(f"{release.name}: approval for {asked.environment} expired")
    return done


def _close(ledger: Ledger, control: Control) -> list[str]:
    """A release whose run has ended without a word has ended too."""
    done = []
    for release in ledger.open_releases():
        ended = _ended(release, control)
        if ended is None:
            continue
        state, message = ended
        ledger.finish_release(release.id, state, message)
        ledger.free_locks(release.name)
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
    return ENDED.get(run.type, "failed"), run.message or f"its run ended as {run.state}"


def _bring_back(ledger: Ledger, control: Control) -> list[str]:
    """A rollout that nobody is at any more (its lease has run out or was freed) is undone by a rollback run."""
    done: list[str] = []
    seen: set[str] = set()
    for rollout in ledger.unfinished_rollouts():
        holder = ledger.lock_holder(rollout.app, rollout.environment)
        if holder is not None and holder.token >= rollout.token and not holder.expired:
            continue
        place = f"{rollout.app} {rollout.environment}"
        if place in seen:
            continue
        seen.add(place)
        going = ledger.unfinished_rollouts(rollout.app, rollout.environment)
        if sum(one.kind == "rollback" for one in going) >= TRIES:
            for one in going:
                ledger.finish_rollout(one.id, "halted")
            done.append(
                f"{place}: could not be brought back in {TRIES} tries: it needs a person, headway rollback {place}"
            )
            continue
        asked = {"app": rollout.app, "environment": rollout.environment, "by": "headway"}
        reason = f"the run of rollout {rollout.id} died"
        minute = int(datetime.now(UTC).timestamp() // RETRY)
        control.start("rollback/main", asked | {"reason": reason}, idempotency_key=f"recover-{rollout.id}-{minute}")
        done.append(f"{place}: bringing it back: {reason}")
    return done
