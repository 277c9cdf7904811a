"""Headway on this machine: the processes that `headway up` starts together and stops together.

warm     fork server: a process that has imported the flows, see headway.service.prefect.fork_server
server   Prefect's API and UI (not started if PREFECT_API_URL is set)
worker   Prefect's process worker of the work pool `headway`
web      HTTP API and webhooks; starts the controllers, see headway.service.controllers.process
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from headway.domain.errors import ServiceUnavailable
from headway.service.child_process import ChildProcess, run_to_end, wait_until, wait_until_exists, wait_until_healthy
from headway.service.prefect import fork_server
from headway.service.prefect.server_settings import server_settings
from headway.system import ports_in_use
from headway.system.paths import home, make_home
from headway.system.project_root import project_root
from headway.system.tls import one_authority
from headway.system.unix_socket import socket_directory

__all__ = ["Stack", "running", "running_pid", "stop"]

DOWN = 240.0  # seconds to stop everything; each service has 45

# The fork server imports these, so that no flow run has to. Prefect and the libraries import the last four late.
PRELOADED = [
    *("prefect.engine", "prefect.flow_engine", "prefect.deployments.steps"),
    *("flows.release", "flows.rollback", "flows.preview"),
    *("prefect.task_engine", "prefect.utilities.visualization", "detect_secrets.core.secrets_collection"),
    *("anyio._core._sockets", "anyio.streams.memory", "filelock._strict", "filelock.asyncio"),
]


@dataclass(frozen=True)
class Stack:
    """The running processes and their addresses."""

    api_url: str
    web_url: str
    logs: Path
    processes: list[ChildProcess] = field(default_factory=list)

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    async def until_one_ends(self) -> None:
        """Wait until a process ends, then raise ServiceUnavailable with the end of its log."""
        waiting = {asyncio.create_task(process.wait()): process for process in self.processes}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        ended = waiting[done.pop()]
        raise ServiceUnavailable(f"{ended.name} has ended:\n{ended.last_lines()}", f"its log: {ended.log}")


@asynccontextmanager
async def running(
    *, host: str, prefect_port: int, web_port: int, on_line: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """Start every process, wait until each is healthy, and stop them all at the end.

    Raises ServiceUnavailable when a port is in use, or a process ends or is not healthy in time; then nothing is left
    running.
    """
    state = make_home()
    (state / "logs").mkdir(exist_ok=True, mode=0o700)
    own_server = "PREFECT_API_URL" not in os.environ
    _refuse_second(state)
    if own_server:
        ports_in_use.require_free(host, prefect_port, "--prefect-port")
    ports_in_use.require_free(host, web_port, "--port")
    api_url = f"http://{host}:{prefect_port}/api" if own_server else os.environ["PREFECT_API_URL"]
    stack = Stack(api_url=api_url, web_url=f"http://{host}:{web_port}", logs=state / "logs")
    processes = _processes(stack, host, prefect_port if own_server else None, web_port)
    try:
        await _start(stack, processes, on_line)
        yield stack
    finally:
        for process in reversed(processes.values()):
            await asyncio.shield(process.stop())
        _marker(state).unlink(missing_ok=True)


async def _start(stack: Stack, processes: Mapping[str, ChildProcess], on_line: Callable[[str], None]) -> None:
    async def start(*names: str) -> None:
        for process in (processes[name] for name in names if name in processes):
            stack.processes.append(process)
            await process.start()

    await start("warm", "server")  # the fork server imports for seconds while the Prefect server starts
    on_line(f"waiting for Prefect at {stack.api_url}")
    await wait_until_healthy(f"{stack.api_url}/health", processes.get("server"))
    addresses = {"api_url": stack.api_url, "web_url": stack.web_url, "pid": os.getpid()}
    _marker(home()).write_text(json.dumps(addresses))
    on_line("registering blocks and deployments")
    warm, worker, web = (processes[name] for name in ("warm", "worker", "web"))
    await _register(warm.environment, stack.logs / "register.log")
    await wait_until_exists(Path(warm.environment["HEADWAY_WARM"]), warm)
    await start("worker", "web")
    await wait_until_healthy(f"{stack.web_url}/health", web)
    await _wait_until_online(stack.api_url, worker)


def _processes(stack: Stack, host: str, prefect_port: int | None, web_port: int) -> dict[str, ChildProcess]:
    """Name -> process, in reverse order of stopping: flow runs record their end in the server, so the worker is first.

    Without a `prefect_port` there is no server.
    """
    environment = _environment(stack.api_url)
    if prefect_port is not None:  # the URL of our own server is plain HTTP: Prefect's client needs no certificates
        environment.setdefault("PREFECT_API_SSL_CERT_FILE", str(one_authority(home() / "one-authority.pem")))
    python = sys.executable
    worker_name = f"headway-{os.getpid()}"
    commands = {
        "server": [
            *(python, "-m", "uvicorn", "--factory", "headway.service.prefect.server:app"),
            *("--app-dir", environment["HEADWAY_PROJECT"], "--host", host, "--port", str(prefect_port)),
        ],
        "warm": [python, "-P", str(Path(fork_server.__file__)), "serve", environment["HEADWAY_WARM"], *PRELOADED],
        "web": [python, "-m", "headway.service.api.http_server", host, str(web_port)],
        "worker": [python, "-m", "prefect", "worker", "start", "--pool", "headway", "--name", worker_name],
    }
    if prefect_port is None:
        del commands["server"]
    # With PREFECT_API_URL the server would use itself as a client does.
    server_environment = server_settings() | {
        name: value for name, value in environment.items() if name != "PREFECT_API_URL"
    }
    return {
        name: ChildProcess(
            name, command, stack.logs / f"{name}.log", server_environment if name == "server" else environment
        )
        for name, command in commands.items()
    }


def _environment(api_url: str) -> dict[str, str]:
    root = str(project_root())
    state = home()
    ours = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(state / "prefect")),
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "0.25",  # the default of 10 s is longer than most steps of a small release
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "headway.targets",  # what a target does beside its steps is in the run's log
        "HEADWAY_HOME": str(state),
        "HEADWAY_PROJECT": root,
        "HEADWAY_WARM": str(socket_directory(state) / "warm.sock"),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        # `headway up` is started in any folder, an app's for example: its blocks.py or click.py are not ours.
        "PYTHONSAFEPATH": "1",
        # Checks find the programs of this Python environment too (the tools of the demo app, for example).
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    return {**os.environ, **ours}


async def _register(environment: Mapping[str, str], log: Path) -> None:
    command = [sys.executable, "-m", "headway.service.prefect.project"]
    log.unlink(missing_ok=True)
    process = ChildProcess("register", command, log, environment, cwd=environment["HEADWAY_PROJECT"])
    if not await run_to_end(process):
        raise ServiceUnavailable(
            f"blocks and deployments could not be registered:\n{process.last_lines()}", f"its log: {log}"
        )


async def _wait_until_online(api_url: str, worker: ChildProcess) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:

        async def online() -> bool:
            answer = await client.post(f"{api_url}/work_pools/headway/workers/filter", json={})
            return any(known["status"] == "ONLINE" and known["name"] == worker.command[-1] for known in answer.json())

        await wait_until(online, worker, "the worker")


def _marker(state: Path) -> Path:
    """File with the addresses of the running stack. Commands read it."""
    return state / "up.json"


def running_pid() -> int | None:
    """Process id of the `headway up` of this HEADWAY_HOME; None when it does not run."""
    try:
        pid = int(json.loads(_marker(home()).read_text())["pid"])
        command = psutil.Process(pid).cmdline()
    except (FileNotFoundError, psutil.Error):
        return None
    return pid if {"up", "demo"} & set(command) else None  # the number may be another program's by now


def stop(pid: int) -> None:
    """Stop a `headway up` as Ctrl-C does, and wait for its end. Raises ServiceUnavailable after `DOWN` seconds."""
    deadline = time.monotonic() + DOWN
    try:
        process = psutil.Process(pid)
        process.send_signal(signal.SIGTERM)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # its parent may never reap it
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"headway up (pid {pid}) has not ended after {DOWN:g} s", f"its logs: {home() / 'logs'}"
                )
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return


def _refuse_second(state: Path) -> None:
    try:
        running = json.loads(_marker(state).read_text())
    except FileNotFoundError:
        return
    if psutil.pid_exists(running["pid"]):
        raise ServiceUnavailable(
            f"headway is up already (pid {running['pid']}): {running['api_url'].removesuffix('/api')}",
            "stop it with `headway down`, or set another HEADWAY_HOME for this one",
        )
