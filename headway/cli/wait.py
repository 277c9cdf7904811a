"""Waiting for a run, which somebody has to take."""

from __future__ import annotations

import time

from headway.cli.output import output
from headway.service.prefect.client import Control, FlowRun

__all__ = ["POLL", "Waited", "wait"]

POLL = 0.1  # seconds; a read of the ledger takes a millisecond
NO_WORKER = 15.0  # seconds


def wait(control: Control, run_id: str) -> FlowRun:
    """Until it has ended, for as long as whoever asked wants to: it goes on without them."""
    waited = Waited(control, run_id)
    while not (run := control.flow_run(run_id)).final:
        waited.look(run)
        time.sleep(POLL)
    return run


class Waited:
    """Says so, once, when no worker takes a run."""

    def __init__(self, control: Control, run_id: str) -> None:
        self._url = control.run_url(run_id)
        self._due = time.monotonic() + NO_WORKER

    def look(self, run: FlowRun) -> None:
        if run.type == "SCHEDULED" and time.monotonic() > self._due:
            output.say(f"no worker has taken it yet; is `headway up` running, or a worker elsewhere? {self._url}")
            self._due = float("inf")
