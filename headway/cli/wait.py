"""Waiting for a flow run, with a notice when no worker takes it."""

from __future__ import annotations

import time

from headway.cli.output import output
from headway.service.prefect.client import Control, FlowRun

__all__ = ["POLL", "WorkerNotice", "wait"]

POLL = 0.1  # seconds; a read of the ledger takes a millisecond
NO_WORKER = 15.0  # seconds


def wait(control: Control, run_id: str) -> FlowRun:
    """Wait until a run has ended. There is no deadline: the user stops waiting with Ctrl-C, and the run goes on."""
    notice = WorkerNotice(control, run_id)
    while not (run := control.flow_run(run_id)).final:
        notice.update(run)
        time.sleep(POLL)
    return run


class WorkerNotice:
    """Prints one line when no worker has taken a run for `NO_WORKER` seconds."""

    def __init__(self, control: Control, run_id: str) -> None:
        self._url = control.run_url(run_id)
        self._due = time.monotonic() + NO_WORKER

    def update(self, run: FlowRun) -> None:
        if run.type == "SCHEDULED" and time.monotonic() > self._due:
            output.say(f"no worker has started the run yet. Is `headway up` or a worker running? {self._url}")
            self._due = float("inf")
