"""Close flow runs that nobody executes any more.

Prefect keeps a run RUNNING when its process was killed together with its worker, PENDING when the worker was killed
before it started the process, and CANCELLING when no worker is left to cancel it. Each run of ours has a heartbeat in
the ledger, which names its process. A run whose process is gone is closed here. Then `recovery` ends its release and
rolls back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from datetime import UTC, datetime
from typing import Literal

import psutil

from headway.ledger import Ledger
from headway.ledger.records import Heartbeat
from headway.service.controllers.base import Controller, collect_error
from headway.service.prefect.client import WORK_POOL, Control, UnfinishedRun

__all__ = ["DeadRuns"]

SILENCE = 45.0  # seconds without a heartbeat after which a run of another host, container or boot is dead
GRACE = 30.0  # seconds in a state before a run without a heartbeat is examined: it may be starting, or ending
NEVER_STARTED = 120.0  # seconds PENDING without a process, after which a run is scheduled again
CANCEL = 45.0  # seconds; Prefect's worker ends a cancelled run within 30


class DeadRuns(Controller):
    """Compares the unfinished runs of the work pool with their heartbeats and processes."""

    name = "dead_runs"
    interval = 5.0

    def __init__(self, ledger: Ledger, control: Control) -> None:
        super().__init__()
        self._ledger = ledger
        self._control = control
        self._terminated: set[str] = set()
        self._scheduled_again: set[str] = set()

    async def reconcile(self) -> list[str]:
        return await asyncio.to_thread(self._close)

    def _close(self) -> list[str]:
        heartbeats = self._ledger.heartbeats.by_run()
        runs = self._control.unfinished_runs()
        lines: list[str] = []
        for run in runs:
            with collect_error(run.name, lines):
                if what := self._examine(run, heartbeats.get(run.id)):
                    lines.append(f"{run.name}: {what}")
        for flow_run_id in heartbeats.keys() - {run.id for run in runs}:
            if not _is_alive(heartbeats[flow_run_id]):
                self._ledger.heartbeats.stop(flow_run_id)
        return lines

    def _examine(self, run: UnfinishedRun, heartbeat: Heartbeat | None) -> str:
        """Close the run if nobody executes it. Returns what was done."""
        seconds = (datetime.now(UTC) - run.since).total_seconds()
        if heartbeat is not None:
            if not _is_alive(heartbeat):
                return self._end(run, "its process died")
            return self._terminate(run, heartbeat) if run.type == "CANCELLING" and seconds > CANCEL else ""
        if seconds < GRACE:
            return ""
        if run.parent_task_run_id is not None:
            parent = self._control.parent_run(run.parent_task_run_id)
            ours = parent.work_pool == WORK_POOL
            ended = f"{parent.name}, which started it, has ended as {parent.state}"
            return self._end(run, ended) if ours and parent.final else ""
        if run.infrastructure_pid is not None and _may_run(run.infrastructure_pid):
            return ""
        if run.type != "PENDING":
            return self._end(run, "its process died")
        # The process of a run that is resumed may be that of its last attempt.
        return self._schedule_again(run) if seconds > NEVER_STARTED else ""

    def _end(self, run: UnfinishedRun, why: str) -> str:
        state: Literal["CANCELLED", "CRASHED"] = "CANCELLED" if run.type == "CANCELLING" else "CRASHED"
        self._control.end(run.id, state, why)
        self._ledger.heartbeats.stop(run.id)
        return f"{state.lower()}: {why}"

    def _schedule_again(self, run: UnfinishedRun) -> str:
        """Schedule the run once more; the second time that no worker starts it, close it."""
        if run.id in self._scheduled_again:
            return self._end(run, "no worker started its process, twice")
        self._scheduled_again.add(run.id)
        self._control.schedule_again(run.id, "its worker died before it started")
        return "scheduled again: its worker died before it started"

    def _terminate(self, run: UnfinishedRun, heartbeat: Heartbeat) -> str:
        """Send SIGTERM once: the run then rolls back what it changed."""
        if run.id in self._terminated or not heartbeat.process.is_here:
            return ""
        self._terminated.add(run.id)
        os.kill(heartbeat.process.pid, signal.SIGTERM)
        return f"cancelled, but no worker ended it in {CANCEL:g} s: its process gets SIGTERM"


def _is_alive(heartbeat: Heartbeat) -> bool:
    return heartbeat.process.runs if heartbeat.process.is_here else heartbeat.age < SILENCE


def _may_run(infrastructure_pid: str) -> bool:
    """Whether the process HOST:PID of a Prefect worker exists, as far as this host can tell."""
    host, _, pid = infrastructure_pid.rpartition(":")
    return host != socket.gethostname() or not pid.isdecimal() or psutil.pid_exists(int(pid))
