"""The heartbeat of a flow run, in the ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.system.processes import this_process

__all__ = ["beating"]

INTERVAL = 5.0  # seconds; other hosts believe a run dead after several times this
LAST_BEAT = 15.0  # seconds that the end of a run waits for a beat that is being written

log = logging.getLogger("headway.heartbeat")


@contextmanager
def beating(ledger: Ledger, flow_run_id: str) -> Iterator[None]:
    """Record every few seconds that this process executes the run, and at the end that none does."""
    ended = threading.Event()
    process = this_process()

    def beat() -> None:
        while True:
            with _logged("heartbeat"):
                ledger.heartbeats.beat(flow_run_id, process)
            if ended.wait(INTERVAL):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_BEAT)
        with _logged("end of the heartbeat"):
            ledger.heartbeats.stop(flow_run_id)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log an error of the ledger: it must not end the run, which needs the ledger itself and will notice."""
    try:
        yield
    except HeadwayError as error:
        log.warning("%s: %s", what, error)
