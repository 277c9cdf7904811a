"""Run the controllers, in a process of their own so that no webhook delivery waits for one.

The API process starts this one (see `headway.service.controllers.process`). Protocol: each byte on standard input
means that new deliveries may be stored; each line on standard output is a JSON object with the checks that changed,
such as {"sweep": "ok"}. The process ends when its standard input does, that is when the API process has ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.service.controllers.audit_signer import AuditSigner
from headway.service.controllers.base import OK, Controller, Report
from headway.service.controllers.branch_poller import BranchPoller
from headway.service.controllers.dead_runs import DeadRuns
from headway.service.controllers.dispatcher import Dispatcher
from headway.service.controllers.journal_pruner import JournalPruner
from headway.service.controllers.preview_reconciler import PreviewReconciler
from headway.service.controllers.recovery import Recovery
from headway.service.controllers.reviver import Reviver
from headway.service.controllers.schedule_monitor import ScheduleMonitor
from headway.service.controllers.status_reporter import StatusReporter
from headway.service.prefect.client import Control
from headway.service.prefect.connections import connections
from headway.system.paths import home, ledger_url

__all__ = ["run"]

PATIENCE = 15.0  # seconds; then /health says that the server is busy, and the next call tries again
END_DEADLINE = 5.0  # seconds for the controllers to end; less than the API process waits

log = logging.getLogger("uvicorn.error")


async def run(controller: Controller, report: Report) -> None:
    """Call `reconcile` until cancelled: every `interval` seconds, or as soon as `wake` is set.

    An error is logged and reported, and the next call tries again. A line that consecutive calls return is logged once.
    """
    logged: list[str] = []
    while True:
        controller.wake.clear()
        try:
            lines = await controller.reconcile()
            for line in lines:
                if line not in logged:
                    log.info("%s", line)
            logged = lines
            report(controller.name, OK)
        except HeadwayError as error:
            log.warning("%s: %s", controller.name, error)
            report(controller.name, error.what)
        except Exception as error:
            log.exception("%s", controller.name)
            report(controller.name, f"a bug in Headway: {type(error).__name__}: {error}")
        with suppress(TimeoutError):
            await asyncio.wait_for(controller.wake.wait(), controller.interval)


def _print_changes() -> Report:
    printed: dict[str, str] = {}

    def report(name: str, state: str) -> None:
        if printed.get(name) != state:
            printed[name] = state
            with suppress(BrokenPipeError):  # the API process has ended: standard input ends this one, too
                os.write(sys.stdout.fileno(), f"{json.dumps({name: state})}\n".encode())

    return report


async def _run_all() -> None:
    """Run every controller until standard input ends."""
    load_target, load_git_host = connections().load_target, connections().load_git_host
    workspaces = home() / "workspaces"
    with Ledger.open(ledger_url()) as ledger, Control(patience=PATIENCE) as control:
        dispatcher = Dispatcher(ledger, control, workspaces, load_git_host)
        controllers: list[Controller] = [
            DeadRuns(ledger, control),
            Recovery(ledger, control),
            Reviver(ledger, load_target),
            ScheduleMonitor(control),
            JournalPruner(ledger),
            AuditSigner(ledger, home()),
            StatusReporter(ledger, control, load_git_host, load_target),
            BranchPoller(ledger, workspaces, dispatcher.wake),
            PreviewReconciler(ledger, control, load_git_host, dispatcher.wake),
            dispatcher,
        ]
        report = _print_changes()
        tasks = [asyncio.create_task(run(controller, report)) for controller in controllers]
        stdin = await _standard_input()
        while await stdin.read(4096):
            dispatcher.wake.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=END_DEADLINE)
        logging.shutdown()
        os._exit(0)  # a thread may wait for a server for minutes; what is cut off is repeated by the next process


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C ends the API process, which ends this one
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request to the Prefect API
    asyncio.run(_run_all())
