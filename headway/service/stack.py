"""Headway on this machine: the processes that `headway up` starts together and stops together.

warm     fork server: a process that has imported the flows, see headway.service.prefect.fork_server
server   Prefect's API and UI, for our own services (not started if PREFECT_API_URL is set)
worker   Prefect's process worker of the work pool `headway`
web      HTTP API and webhooks; starts the controllers, see headway.service.controllers.process
door     Envoy, the only one that others reach: sign-in, see headway.service.door
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from headway.domain.errors import ServiceUnavailable
from headway.service.apps import start_apps
from headway.service.child_process import ChildProcess, Waiting
from headway.service.door import process as door
from headway.service.door.envoy import PREFECT, Tls
from headway.service.prefect import fork_server, program
from headway.service.prefect.client import Control
from headway.service.prefect.credential import authorization, make_login
from headway.service.prefect.server_settings import server_settings
from headway.service.up_record import UpRecord
from headway.system import ports_in_use
from headway.system.origin import LISTEN, URL
from headway.system.paths import home, make_home
from headway.system.processes import this_process
from headway.system.project_root import project_root
from headway.system.tls import one_authority
from headway.system.unix_socket import socket_directory

__all__ = ["Addresses", "Stack", "running", "running_pid", "serving", "stop"]

LOOPBACK = "127.0.0.1"
DOWN = 240.0  # seconds to stop everything; each service has 45

# The fork server imports these, so that no flow run has to. Prefect and the libraries import the last four late.
PRELOADED = [
    *("prefect.engine", "prefect.flow_engine", "prefect.deployments.steps"),
    *("flows.release", "flows.rollback", "flows.preview"),
    *("prefect.task_engine", "prefect.utilities.visualization", "detect_secrets.core.secrets_collection"),
    *("anyio._core._sockets", "anyio.streams.memory", "filelock._strict", "filelock.asyncio"),
]
PATHS = ("PREFECT_HOME", "HEADWAY_SECRETS", "PREFECT_PROFILES_PATH", "DOCKER_CERT_PATH", "KUBECONFIG")
"""Variables with a path, which may be relative to the folder in which `headway up` was started."""
RESTARTS, RESTART_WINDOW = 5, 120.0  # times that a process may end within as many seconds


@dataclass(frozen=True)
class Stack:
    """The running processes and their addresses."""

    api_url: str
    web_url: str
    ui_url: str
    logs: Path
    processes: list[ChildProcess] = field(default_factory=list)

    async def keep_running(self, on_line: Callable[[str], None]) -> None:
        """Start each process again that ends. Raises ServiceUnavailable when one ends too often."""
        keeping = [asyncio.create_task(_keep_running(process, on_line)) for process in self.processes]
        try:
            done, _ = await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in keeping:
                task.cancel()
        for task in done:
            task.result()


async def _keep_running(process: ChildProcess, on_line: Callable[[str], None]) -> None:
    """Flow runs survive their worker, and wait for the server."""
    ends: list[float] = []
    while True:
        code = await process.wait()
        now = time.monotonic()
        ends = [end for end in ends if end > now - RESTART_WINDOW] + [now]
        what = f"exit {code}" if code >= 0 else signal.Signals(-code).name
        if len(ends) > RESTARTS:
            raise ServiceUnavailable(
                f"{process.name} has ended {len(ends)} times in {RESTART_WINDOW:g} s ({what}):\n{process.last_lines()}",
                f"its log: {process.log}",
            )
        on_line(f"{process.name} has ended ({what}) and is started again; its log: {process.log}")
        await asyncio.sleep(len(ends) - 1.0)
        await process.start()


@dataclass(frozen=True)
class Addresses:
    """Where Headway listens: the door, for everybody, and Prefect's server, on the loopback interface only."""

    host: str
    port: int
    prefect_port: int
    tls: Tls | None = None

    @property
    def url(self) -> str:
        """HEADWAY_URL, or the address that the door listens on."""
        here = f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"
        return os.environ.get(URL, "").rstrip("/") or here


@asynccontextmanager
async def running(addresses: Addresses, on_line: Callable[[str], None]) -> AsyncIterator[Stack]:
    """Start every process, wait until each is healthy, and stop them all at the end.

    Raises ServiceUnavailable when a port is in use, or a process ends or makes no progress; then nothing is left
    running.
    """
    state = make_home()
    (state / "logs").mkdir(exist_ok=True, mode=0o700)
    own_server = "PREFECT_API_URL" not in os.environ
    _refuse_second()
    for line in await asyncio.to_thread(lambda: list(start_apps(state))):
        on_line(line)
    if own_server:
        ports_in_use.require_free(LOOPBACK, addresses.prefect_port, "--prefect-port")
    ports_in_use.require_free(addresses.host, addresses.port, "--port")
    api_url = f"http://{LOOPBACK}:{addresses.prefect_port}/api" if own_server else os.environ["PREFECT_API_URL"]
    ui_url = f"{addresses.url}{PREFECT}" if own_server else api_url.removesuffix("/api")
    stack = Stack(api_url=api_url, web_url=addresses.url, ui_url=ui_url, logs=state / "logs")
    processes = _processes(stack, addresses, make_login() if own_server else None)
    try:
        await _start(stack, addresses, processes, on_line)
        yield stack
    finally:
        for process in reversed(processes.values()):
            await asyncio.shield(process.stop())
        UpRecord.file().unlink(missing_ok=True)


@asynccontextmanager
async def serving(addresses: Addresses, api_url: str, on_line: Callable[[str], None]) -> AsyncIterator[Stack]:
    """Start the web service and the door alone, for a Prefect server and workers elsewhere; stop them at the end.

    Raises ServiceUnavailable.
    """
    logs = make_home() / "logs"
    logs.mkdir(exist_ok=True, mode=0o700)
    ports_in_use.require_free(addresses.host, addresses.port, "--port")
    stack = Stack(api_url=api_url, web_url=addresses.url, ui_url=api_url.removesuffix("/api"), logs=logs)
    all_processes = _processes(stack, addresses, None)
    processes = {name: all_processes[name] for name in ("web", "door")}
    try:
        for process in processes.values():
            stack.processes.append(process)
            await process.start()
        await _wait_for_door(processes, addresses, on_line)
        yield stack
    finally:
        for process in reversed(processes.values()):
            await asyncio.shield(process.stop())


async def _start(
    stack: Stack, addresses: Addresses, processes: Mapping[str, ChildProcess], on_line: Callable[[str], None]
) -> None:
    async def start(*names: str) -> None:
        for process in (processes[name] for name in names if name in processes):
            stack.processes.append(process)
            await process.start()

    warm, worker = processes["warm"], processes["worker"]
    await start("warm", "server")  # the fork server imports for seconds while the Prefect server starts
    on_line(f"waiting for Prefect at {stack.api_url}")
    await Waiting(processes.get("server", warm), on_line).until_healthy(f"{stack.api_url}/health")
    urls = {"api_url": stack.api_url, "web_url": stack.web_url, "ui_url": stack.ui_url}
    UpRecord(**urls, **this_process().model_dump()).write()
    on_line("registering blocks and deployments")
    await _register(warm.environment, stack.logs / "register.log", on_line)
    await Waiting(warm, on_line).until_exists(Path(warm.environment["HEADWAY_WARM"]))
    on_line("starting the worker and the web service")
    await start("worker", "web", "door")
    await _wait_for_door(processes, addresses, on_line)
    with Control(stack.api_url, login=worker.environment.get("PREFECT_API_AUTH_STRING")) as control:
        await _wait_until_online(control, Waiting(worker, on_line))


async def _wait_for_door(
    processes: Mapping[str, ChildProcess], addresses: Addresses, on_line: Callable[[str], None]
) -> None:
    await Waiting(processes["web"], on_line).until_healthy("http://web/health", socket=door.web_socket())
    await Waiting(processes["door"], on_line).until_listening(addresses.host, addresses.port)


def _processes(stack: Stack, addresses: Addresses, login: str | None) -> dict[str, ChildProcess]:
    """Name -> process, in reverse order of stopping: flow runs record their end in the server, so the worker is first.

    Without the `login` of a Prefect server of our own there is no server.
    """
    environment = _environment(stack.api_url) | {
        URL: addresses.url,
        LISTEN: f"{addresses.host}:{addresses.port}",
        "PREFECT_UI_URL": stack.ui_url,
    }
    server_environment: dict[str, str] = {}
    if login is not None:  # the URL of our own server is plain HTTP: Prefect's client needs no certificates
        environment.setdefault("PREFECT_API_SSL_CERT_FILE", str(one_authority(home() / "one-authority.pem")))
        environment.setdefault("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "false")  # our server asks for no token
        environment["PREFECT_API_AUTH_STRING"] = login
        # With PREFECT_API_URL the server would use itself as a client does.
        server_environment = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
        server_environment |= server_settings(login, home() / "prefect-ui")
    python = sys.executable
    worker_name = f"headway-{os.getpid()}"
    prefect = (LOOPBACK, addresses.prefect_port) if login is not None else None
    commands = {
        "server": [
            *(python, "-m", "uvicorn", "--factory", "headway.service.prefect.server:app"),
            *("--app-dir", environment["HEADWAY_PROJECT"], "--host", LOOPBACK, "--port", str(addresses.prefect_port)),
        ],
        "warm": [python, "-P", str(Path(fork_server.__file__)), "serve", environment["HEADWAY_WARM"], *PRELOADED],
        "door": door.command(
            addresses.host, addresses.port, addresses.tls, prefect, authorization(login) if login else ""
        ),
        "web": [python, "-m", "headway.service.api.http_server", str(door.web_socket())],
        "worker": [python, "-m", program.__name__, "worker", "start", "--pool", "headway", "--name", worker_name],
    }
    if login is None:
        del commands["server"]
    return {
        name: ChildProcess(
            name,
            command,
            stack.logs / f"{name}.log",
            server_environment if name == "server" else environment,
            cwd=str(home()),  # Prefect reads `.env` and `prefect.toml` of the folder that it starts in
        )
        for name, command in commands.items()
    }


def _environment(api_url: str) -> dict[str, str]:
    root = str(project_root())
    state = home()
    ours = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(state / "prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "0.25",  # the default of 10 s is longer than most steps of a small release
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "headway.targets",  # what a target does beside its steps is in the run's log
        "PREFECT_CLIENT_MAX_RETRIES": "8",  # until a run that no warm process forked has imported blocks.loading
        "HEADWAY_HOME": str(state),
        "HEADWAY_PROJECT": root,
        "HEADWAY_WARM": str(socket_directory(state) / "warm.sock"),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        # `headway up` is started in any folder, an app's for example: its blocks.py or click.py are not ours.
        "PYTHONSAFEPATH": "1",
        # Checks find the programs of this Python environment too (the tools of the demo app, for example).
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    relative = {name: str(Path(value).absolute()) for name in PATHS if (value := os.environ.get(name))}
    return {**os.environ, **ours, **relative}


async def _register(environment: Mapping[str, str], log: Path, on_line: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "headway.service.prefect.project"]
    log.unlink(missing_ok=True)
    process = ChildProcess("register", command, log, environment, cwd=environment["HEADWAY_PROJECT"])
    await process.start()
    if not await Waiting(process, on_line).until_end():
        raise ServiceUnavailable(
            f"blocks and deployments could not be registered:\n{process.last_lines()}", f"its log: {log}"
        )


async def _wait_until_online(control: Control, waiting: Waiting) -> None:
    name = waiting.process.command[-1]

    async def online() -> bool:
        found = await asyncio.to_thread(control.query, "/work_pools/headway/workers/filter", {})
        return any(known["status"] == "ONLINE" and known["name"] == name for known in found)

    await waiting.until(online, "its first heartbeat at the Prefect server")


def running_pid() -> int | None:
    """Process id of the `headway up` of this HEADWAY_HOME; None when it does not run."""
    up = UpRecord.read()
    return up.pid if up and up.is_here and up.runs else None


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


def _refuse_second() -> None:
    running = UpRecord.read()
    if running and running.is_here and running.runs:
        raise ServiceUnavailable(
            f"headway is up already (pid {running.pid}): {running.web_url}",
            "stop it with `headway down`, or set another HEADWAY_HOME for this one",
        )
