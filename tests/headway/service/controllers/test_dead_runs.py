"""Runs that Prefect believes to be executed, with a real ledger and real processes. Only the Prefect API is a fake."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from headway.ledger import Ledger
from headway.service.controllers.dead_runs import CANCEL, GRACE, NEVER_STARTED, SILENCE, DeadRuns
from headway.service.prefect.client import Control, FlowRun, UnfinishedRun
from headway.system.processes import ProcessIdentity, this_process

LONG = 1000.0


class Prefect(Control):
    """A Prefect API in memory, as far as this controller asks for it."""

    def __init__(self) -> None:
        self.runs: list[UnfinishedRun] = []
        self.parents: dict[str, FlowRun] = {}
        self.ended: dict[str, tuple[str, str]] = {}
        self.scheduled: list[str] = []

    def has(self, type_: str, seconds: float, *, pid: str | None = None, parent: str | None = None) -> None:
        since = datetime.now(UTC) - timedelta(seconds=seconds)
        self.runs = [
            UnfinishedRun(
                id="run-1", name="fox", type=type_, since=since, infrastructure_pid=pid, parent_task_run_id=parent
            )
        ]

    def unfinished_runs(self) -> list[UnfinishedRun]:
        return self.runs

    def parent_run(self, parent_task_run_id: str) -> FlowRun:
        return self.parents[parent_task_run_id]

    def end(self, flow_run_id: str, state: str, message: str) -> None:
        self.ended[flow_run_id] = (state, message)
        self.runs = []

    def schedule_again(self, flow_run_id: str, message: str) -> None:
        assert message
        self.scheduled.append(flow_run_id)


@pytest.fixture
def clock() -> list[datetime]:
    return [datetime(2026, 1, 1, 12, tzinfo=UTC)]


@pytest.fixture
def ledger(tmp_path: Path, clock: list[datetime]) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", lambda: clock[0]) as opened:
        yield opened


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
def controller(ledger: Ledger, prefect: Prefect) -> DeadRuns:
    return DeadRuns(ledger, prefect)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as running:
        yield running
        running.kill()


def identity(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    created = psutil.Process(process.pid).create_time()
    return this_process().model_copy(update={"pid": process.pid, "created": created})


@pytest.mark.parametrize(
    ("type_", "state"), [("RUNNING", "CRASHED"), ("PENDING", "CRASHED"), ("CANCELLING", "CANCELLED")]
)
async def test_a_run_whose_process_was_killed_is_closed_at_once(
    ledger: Ledger,
    prefect: Prefect,
    controller: DeadRuns,
    process: subprocess.Popen[bytes],
    type_: str,
    state: str,
) -> None:
    ledger.heartbeats.beat("run-1", identity(process))
    prefect.has(type_, 1)
    assert await controller.reconcile() == []
    process.kill()
    process.wait()
    assert await controller.reconcile() == [f"fox: {state.lower()}: its process died"]
    assert prefect.ended == {"run-1": (state, "its process died")}
    assert ledger.heartbeats.by_run() == {}
    assert await controller.reconcile() == []


async def test_a_run_that_is_busy_for_long_is_not_dead(
    ledger: Ledger, prefect: Prefect, controller: DeadRuns, clock: list[datetime]
) -> None:
    """Its process exists, although it had no time for a heartbeat."""
    ledger.heartbeats.beat("run-1", this_process())
    clock[0] += timedelta(hours=1)
    prefect.has("RUNNING", LONG)
    assert await controller.reconcile() == []


async def test_a_run_on_another_host_is_dead_when_it_is_silent(
    ledger: Ledger, prefect: Prefect, controller: DeadRuns, clock: list[datetime]
) -> None:
    ledger.heartbeats.beat("run-1", this_process().model_copy(update={"host": "another"}))
    prefect.has("RUNNING", LONG)
    clock[0] += timedelta(seconds=SILENCE - 1)
    assert await controller.reconcile() == []
    clock[0] += timedelta(seconds=2)
    assert await controller.reconcile() == ["fox: crashed: its process died"]


@pytest.mark.parametrize("type_", ["RUNNING", "CANCELLING"])
async def test_a_run_without_a_heartbeat_may_be_starting_or_ending(
    prefect: Prefect, controller: DeadRuns, type_: str
) -> None:
    prefect.has(type_, GRACE - 5)
    assert await controller.reconcile() == []
    prefect.has(type_, GRACE + 5)
    assert len(await controller.reconcile()) == 1


async def test_the_process_of_the_worker_counts_before_the_first_heartbeat(
    prefect: Prefect, controller: DeadRuns, process: subprocess.Popen[bytes]
) -> None:
    pid = f"{socket.gethostname()}:{process.pid}"
    prefect.has("RUNNING", LONG, pid=pid)
    assert await controller.reconcile() == []
    process.kill()
    process.wait()
    prefect.has("PENDING", GRACE + 5, pid=pid)  # resumed: the worker has not started the next process yet
    assert await controller.reconcile() == []
    prefect.has("RUNNING", LONG, pid=pid)
    assert await controller.reconcile() == ["fox: crashed: its process died"]


async def test_a_run_whose_worker_died_before_it_started_is_scheduled_again_once(
    prefect: Prefect, controller: DeadRuns
) -> None:
    prefect.has("PENDING", NEVER_STARTED - 5)
    assert await controller.reconcile() == []
    prefect.has("PENDING", NEVER_STARTED + 5)
    assert await controller.reconcile() == ["fox: scheduled again: its worker died before it started"]
    assert prefect.scheduled == ["run-1"]
    assert await controller.reconcile() == ["fox: crashed: no worker started its process, twice"]


async def test_a_cancelled_run_that_no_worker_ends_is_terminated_once(
    ledger: Ledger, prefect: Prefect, controller: DeadRuns, process: subprocess.Popen[bytes]
) -> None:
    ledger.heartbeats.beat("run-1", identity(process))
    prefect.has("CANCELLING", CANCEL - 5)
    assert await controller.reconcile() == []
    prefect.has("CANCELLING", CANCEL + 5)
    (line,) = await controller.reconcile()
    assert "its process gets SIGTERM" in line
    assert process.wait(60) == -signal.SIGTERM
    assert await controller.reconcile() == ["fox: cancelled: its process died"]


@pytest.mark.parametrize(
    ("parent", "pool", "closed"),
    [("CRASHED", "headway", True), ("RUNNING", "headway", False), ("CRASHED", "of-another", False)],
)
async def test_a_subflow_ends_with_the_run_that_started_it(
    prefect: Prefect, controller: DeadRuns, parent: str, pool: str, closed: bool
) -> None:
    prefect.has("RUNNING", LONG, parent="task-1")
    prefect.parents["task-1"] = FlowRun(id="0", name="shop", state="Ended", type=parent, message="", work_pool=pool)
    expected = ["fox: crashed: shop, which started it, has ended as Ended"] if closed else []
    assert await controller.reconcile() == expected


async def test_heartbeats_of_runs_that_ended_without_removing_them_are_removed(
    ledger: Ledger, controller: DeadRuns, clock: list[datetime]
) -> None:
    ledger.heartbeats.beat("run-1", this_process().model_copy(update={"boot": "another"}))
    clock[0] += timedelta(seconds=SILENCE + 1)
    ledger.heartbeats.beat("run-2", this_process())
    assert await controller.reconcile() == []
    assert list(ledger.heartbeats.by_run()) == ["run-2"]
