"""Every background service of Prefect's server does its work with the installed versions of its libraries.

A service that fails only writes to the server's log: the server is healthy and nothing is scheduled or expires.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.typing import Subprotocol

from headway.service.prefect.server_settings import server_settings
from tests.e2e.conftest import migrated_database
from tests.standins.prefect_server import errors_in

pytestmark = pytest.mark.slow

PATIENCE = 60.0  # seconds
LOGIN = "headway:a login of the tests"
AUTH = ("headway", "a login of the tests")

LOOPS = {
    f"PREFECT_SERVER_SERVICES_{name}_LOOP_SECONDS": "1"
    for name in (
        *("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "FOREMAN", "REPOSSESSOR", "CANCELLATION_CLEANUP"),
        *("CLEANUP_RECONCILER", "DB_VACUUM"),
    )
}
SETTINGS = {
    **server_settings(LOGIN, Path(tempfile.gettempdir()) / "prefect-ui"),
    "PREFECT_API_AUTH_STRING": LOGIN,
    **LOOPS,
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

# The service -> the test that sees what it does. None: it is off, or what it does cannot be seen from outside; then an
# ERROR in the log is what shows that it fails.
TESTED = {
    "schedule_deployments": "test_schedules_have_runs",
    "schedule_recent_deployments": "test_schedules_have_runs",
    "monitor_late_runs": "test_run_without_a_worker_is_late",
    "monitor_expired_pauses": "test_a_pause_expires",
    "monitor_worker_health": "test_a_silent_worker_is_offline",
    "monitor_expired_leases": "test_an_expired_lease_frees_its_slot",
    "ensure_cancelling_timeout_checks": "test_a_cancelled_run_takes_its_children_with_it",
    "monitor_cancelled_flow_runs": "test_a_cancelled_run_takes_its_children_with_it",
    "monitor_subflow_runs": "test_a_cancelled_run_takes_its_children_with_it",
    "schedule_vacuum_tasks": "test_old_runs_events_and_orphans_are_removed",
    "schedule_event_vacuum_tasks": "test_old_runs_events_and_orphans_are_removed",
    "schedule_orphan_vacuum_tasks": "test_old_runs_events_and_orphans_are_removed",
    "evaluate_proactive_triggers_periodic": "test_automations_act",
    "ReactiveTriggers": "test_automations_act",
    "Actions": "test_automations_act",
    "EventPersister": "test_events_and_task_runs_of_a_flow_are_stored",
    "TaskRunRecorder": "test_events_and_task_runs_of_a_flow_are_stored",
    "Distributor": "test_events_are_streamed",
    "LogDistributor": None,
    "reconcile_cleanup_delivery": None,
    "send_telemetry_heartbeat": None,
    "EventLogger": None,
}

FLOW = """
from prefect import flow, task

@task
def add(a, b):
    return a + b

@flow(log_prints=True)
def sums():
    print("adding")
    return add(1, 2)

sums()
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server as `headway up` starts it, whose services run every second."""

    url: str
    home: Path
    log: Path
    environment: dict[str, str]

    def post(self, path: str, body: Any) -> Any:
        answer = httpx.post(f"{self.url}{path}", json=body, auth=AUTH, trust_env=False, timeout=30)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json() if answer.content else None

    def create(self, path: str, body: Any) -> str:
        return str(self.post(path, body)["id"])

    def flow(self) -> str:
        return self.create("/flows/", {"name": f"flow-{uuid.uuid4()}"})

    def flow_run(self, state: dict[str, Any], **fields: Any) -> str:
        return self.create("/flow_runs/", {"flow_id": self.flow(), "state": state, **fields})

    def set_state(self, flow_run: str, state: dict[str, Any]) -> None:
        self.post(f"/flow_runs/{flow_run}/set_state", {"state": state, "force": True})

    def state(self, flow_run: str, kind: str = "flow_runs") -> str:
        answer = httpx.get(f"{self.url}/{kind}/{flow_run}", auth=AUTH, trust_env=False, timeout=30)
        if not answer.is_success:
            return "removed"
        state = answer.json()["state"]  # a run that is being removed has lost its states already
        return str(state["name"]) if state else ""

    def count(self, table: str, where: str, *values: str) -> int:
        with closing(sqlite3.connect(self.home / "prefect.db")) as database:
            return int(database.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()[0])

    def until(self, what: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    (home / "prefect.db").write_bytes(migrated_database().read_bytes())
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**theirs, "PREFECT_HOME": str(home), **SETTINGS}
    log = home / "server.log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as output:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        command = [*(sys.executable, "-m", "uvicorn", "--factory", "headway.service.prefect.server:app")]
        command += ["--fd", str(listener.fileno())]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, pass_fds=[listener.fileno()])
    try:
        # The socket listens already: the request waits until the server accepts it.
        assert httpx.get(f"{url}/health", trust_env=False, timeout=2 * PATIENCE).is_success
        yield Server(url, home, log, {**environment, "PREFECT_API_URL": url})
    finally:
        process.terminate()
        process.wait(30)
    assert not (errors := errors_in(log)), "\n".join(errors)


def test_each_service_is_exercised() -> None:
    from prefect.server.services.base import Service
    from prefect.server.services.perpetual_services import get_perpetual_services

    services = {service.__name__ for service in Service.all_services()}  # imports every module with services
    services |= {config.function.__name__ for config in get_perpetual_services()}
    assert services == set(TESTED)
    assert {name for name in TESTED.values() if name} <= set(globals())


def test_schedules_have_runs(server: Server) -> None:
    schedule = {"active": True, "schedule": {"cron": "* * * * *", "timezone": "UTC"}}
    deployment = {"name": "nightly", "flow_id": server.flow(), "schedules": [schedule]}
    wanted = {
        "deployments": {"id": {"any_": [server.create("/deployments/", deployment)]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    server.until(lambda: server.post("/flow_runs/count", wanted) >= 3)


def test_run_without_a_worker_is_late(server: Server) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    run = server.flow_run({"type": "SCHEDULED", "state_details": {"scheduled_time": past}})
    server.until(lambda: server.state(run) == "Late")


def test_a_pause_expires(server: Server) -> None:
    run = server.flow_run({"type": "RUNNING"})
    timeout = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    server.set_state(run, {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_timeout": timeout}})
    server.until(lambda: server.state(run) == "Failed")


def test_a_silent_worker_is_offline(server: Server) -> None:
    server.create("/work_pools/", {"name": "silent", "type": "process"})
    beat = {"name": "worker", "heartbeat_interval_seconds": 1}
    server.post("/work_pools/silent/workers/heartbeat", beat)

    def status() -> str:
        (worker,) = server.post("/work_pools/silent/workers/filter", {})
        return str(worker["status"])

    server.until(lambda: status() == "OFFLINE")


def test_an_expired_lease_frees_its_slot(server: Server) -> None:
    server.create("/v2/concurrency_limits/", {"name": "one", "limit": 1})
    taken = {"names": ["one"], "slots": 1, "lease_duration": 60}
    lease = server.post("/v2/concurrency_limits/increment-with-lease", taken)["lease_id"]
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    leases = server.home / "concurrency_leases"
    record = json.loads((leases / f"{lease}.json").read_text())
    (leases / f"{lease}.json").write_text(json.dumps(record | {"expiration": past}))
    (leases / "expirations.json").write_text(json.dumps({lease: past}))
    server.until(lambda: server.count("concurrency_limit_v2", "name = 'one' AND active_slots = 0"))


def test_a_cancelled_run_takes_its_children_with_it(server: Server) -> None:
    parent = server.flow_run({"type": "RUNNING"})
    task = {"flow_run_id": parent, "task_key": "task", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    task_run = server.create("/task_runs/", task)
    child = server.flow_run({"type": "RUNNING"}, parent_task_run_id=task_run)
    stuck = server.flow_run({"type": "RUNNING"})
    server.set_state(stuck, {"type": "CANCELLING"})
    server.set_state(parent, {"type": "CANCELLED"})
    server.until(lambda: server.state(task_run, "task_runs") == "Cancelled")
    server.until(lambda: server.state(child) == "Cancelled")
    server.until(lambda: server.state(stuck) == "Cancelled")


def test_old_runs_events_and_orphans_are_removed(server: Server) -> None:
    run = server.flow_run({"type": "COMPLETED"})
    log = {"name": "log", "level": 20, "message": "a line", "timestamp": datetime.now(UTC).isoformat()}
    orphan = str(uuid.uuid4())
    server.post("/logs/", [{**log, "flow_run_id": run}, {**log, "flow_run_id": orphan}])
    old, new = _event("test.removed", age=timedelta(days=30)), _event("test.kept")
    server.post("/events", [old, new])
    server.until(lambda: server.count("events", "event = 'test.kept'"))
    with closing(sqlite3.connect(server.home / "prefect.db", timeout=30)) as database:
        database.execute("UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE id = ?", [run])
        database.commit()
    server.until(lambda: server.state(run) == "removed")
    server.until(lambda: not server.count("log", "flow_run_id IN (?, ?)", run, orphan))
    server.until(lambda: not server.count("events", "event = 'test.removed'"))


def test_automations_act(server: Server) -> None:
    deployment = server.create("/deployments/", {"name": "started", "flow_id": server.flow()})
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment}
    at_once = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0, "expect": ["test.happened"]}
    missed = {"type": "event", "posture": "Proactive", "threshold": 1, "within": 10, "expect": ["test.never"]}
    server.create("/automations/", {"name": "missed", "trigger": missed, "actions": [action]})
    server.create("/automations/", {"name": "at once", "trigger": at_once, "actions": [action]})
    server.post("/events", [_event("test.happened")])
    started = {"deployments": {"id": {"any_": [deployment]}}}
    server.until(lambda: server.post("/flow_runs/count", started) >= 2)


def test_events_and_task_runs_of_a_flow_are_stored(server: Server) -> None:
    subprocess.run(
        [sys.executable, "-c", FLOW], env=server.environment, check=True, capture_output=True, timeout=PATIENCE
    )
    server.until(lambda: server.post("/task_runs/filter", {"task_runs": {"name": {"like_": "add"}}}))
    server.until(lambda: server.count("events", "event = 'prefect.flow-run.Completed'"))
    assert not server.count("events", "event LIKE 'prefect.task-run.%'")
    server.until(lambda: server.count("log", "message = 'adding'"))


async def test_events_are_streamed(server: Server) -> None:
    now = datetime.now(UTC)
    period = {"since": now.isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    address = f"{server.url.replace('http', 'ws', 1)}/events/out"
    async with asyncio.timeout(PATIENCE), websockets.connect(address, subprotocols=[Subprotocol("prefect")]) as stream:
        await stream.send(json.dumps({"type": "auth", "token": LOGIN}))
        assert json.loads(await stream.recv())["type"] == "auth_success"
        await stream.send(json.dumps({"type": "filter", "filter": {"occurred": period}}))
        received = ""
        while "test.streamed" not in received:  # what is posted before the subscription is not sent
            await asyncio.to_thread(server.post, "/events", [_event("test.streamed")])
            with suppress(TimeoutError):
                received = str(await asyncio.wait_for(stream.recv(), 1.0))


def _event(name: str, age: timedelta = timedelta()) -> dict[str, Any]:
    occurred = (datetime.now(UTC) - age).isoformat()
    resource = {"prefect.resource.id": f"test.{uuid.uuid4()}"}
    return {"id": str(uuid.uuid4()), "event": name, "occurred": occurred, "resource": resource}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic aGVhZHdheTpndWVzcw=="}, {"x-headway-door": "1"}])
def test_clients_without_the_login_are_refused(server: Server, headers: dict[str, str]) -> None:
    """Any user of the machine, and any page in a browser on it, can reach the port."""
    secrets = {"include_secrets": True}
    answer = httpx.post(f"{server.url}/block_documents/filter", json=secrets, headers=headers, trust_env=False)
    assert answer.status_code == 401
    origin = {"origin": "http://evil.example", "access-control-request-method": "POST"} | headers
    asked = httpx.options(f"{server.url}/block_documents/filter", headers=origin, trust_env=False)
    assert "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize("headers", [{}, {"x-headway-door": "1"}])
async def test_streams_without_the_login_are_refused(server: Server, headers: dict[str, str]) -> None:
    address = f"{server.url.replace('http', 'ws', 1)}/events/out"
    connecting = websockets.connect(address, subprotocols=[Subprotocol("prefect")], additional_headers=headers)
    async with asyncio.timeout(PATIENCE), connecting as stream:
        await stream.send(json.dumps({"type": "auth", "token": "headway:guess"}))
        with pytest.raises(websockets.ConnectionClosed):
            await stream.recv()
