"""Everything on this machine: Prefect server, worker and web app, started together and stopped together.

warm     a process that has imported the flows already, see headway.service.prefect.fork_server
server   Prefect's API and UI (left out when PREFECT_API_URL names another)
worker   Prefect's process worker on the pool `headway`
web      Headway's health page and webhooks; it starts the controllers, see headway.service.controllers.runner
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from headway.domain.errors import ServiceUnavailable
from headway.service.prefect import fork_server
from headway.system import ports_in_use
from headway.system.paths import home
from headway.system.project_root import project_root
from headway.system.tls import one_authority
from headway.system.unix_socket import socket_directory

__all__ = ["Service", "Up", "running"]

START_DEADLINE = 120.0  # seconds; a fresh database on a slow disk takes Prefect half a minute
STOP_DEADLINE = 45.0  # seconds; runs have 30 to bring back what they began to change
# What a run would import when it comes to it, Prefect and the libraries themselves not before.
LATE = ["prefect.task_engine", "prefect.utilities.visualization", "detect_secrets.core.secrets_collection"]
LATE += ["anyio._core._sockets", "anyio.streams.memory", "filelock._strict", "filelock.asyncio"]


@dataclass
class Service:
    """One child process, in a process group of its own; its output goes to a file."""

    name: str
    command: list[str]
    log: Path
    environment: Mapping[str, str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def stop(self, deadline: float = STOP_DEADLINE) -> None:
        """SIGTERM, and after the deadline SIGKILL to the whole group. Stopping what has stopped is nothing."""
        if self.process is None:
            return
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), deadline)
            except TimeoutError:
                self._kill()
        self._kill()
        await self.process.wait()

    def _kill(self) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def last_words(self, lines: int = 5) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(frozen=True)
class Up:
    """Where things are."""

    api_url: str
    web_url: str
    logs: Path
    services: list[Service] = field(default_factory=list)

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    async def until_one_dies(self) -> None:
        """Returns never, unless a service ends: then raises ServiceUnavailable with its last words."""
        waiting = {asyncio.create_task(_ended(service)): service for service in self.services}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        dead = waiting[done.pop()]
        raise ServiceUnavailable(f"{dead.name} has ended:\n{dead.last_words()}", f"its log: {dead.log}")


async def _ended(service: Service) -> None:
    assert service.process is not None
    await service.process.wait()


@asynccontextmanager
async def running(*, host: str, prefect_port: int, web_port: int, on_line: Callable[[str], None]) -> AsyncIterator[Up]:
    """Start every service, wait until each is healthy, and stop them all in the end, the last first.

    Raises ServiceUnavailable when a port is taken, a service dies or is not healthy in time; nothing is left running
    then.
    """
    state = home()
    logs = state / "logs"
    logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    own_server = "PREFECT_API_URL" not in os.environ
    _refuse_second(state)
    if own_server:
        ports_in_use.require_free(host, prefect_port, "--prefect-port")
    ports_in_use.require_free(host, web_port, "--port")
    api_url = f"http://{host}:{prefect_port}/api" if own_server else os.environ["PREFECT_API_URL"]
    up = Up(api_url=api_url, web_url=f"http://{host}:{web_port}", logs=logs)
    environment = _environment(api_url)
    if own_server:  # it speaks plain HTTP
        environment.setdefault("PREFECT_API_SSL_CERT_FILE", str(one_authority(state / "one-authority.pem")))
    server, warm, worker, web = _services(up, environment, host, prefect_port, web_port)
    marker = state / "up.json"
    try:
        up.services.append(warm)
        await warm.start()  # imports for seconds while the server starts
        if own_server:
            up.services.append(server)
            await server.start()
        on_line(f"waiting for Prefect at {api_url}")
        await _until(f"{api_url}/health", server if own_server else None)
        marker.write_text(json.dumps({"api_url": api_url, "web_url": up.web_url, "pid": os.getpid()}))
        on_line("registering blocks and deployments")
        await _register(environment, logs / "register.log")
        await _until_exists(Path(environment["HEADWAY_WARM"]), warm)
        for service in (worker, web):
            up.services.append(service)
            await service.start()
        await _until(f"{up.web_url}/health", web)
        await _until_worker(api_url, worker)
        yield up
    finally:
        for service in (worker, web, warm, server):  # runs first: they tell the server how they end
            await asyncio.shield(service.stop())
        marker.unlink(missing_ok=True)


def _services(
    up: Up, environment: dict[str, str], host: str, prefect_port: int, web_port: int
) -> tuple[Service, Service, Service, Service]:
    python = sys.executable
    warm = str(Path(fork_server.__file__))
    modules = ["prefect.engine", "prefect.flow_engine", "prefect.deployments.steps"]
    modules += ["flows.release", "flows.rollback", "flows.preview"]
    modules += LATE
    # The server must not mistake itself for its own client.
    alone = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    commands = {
        "server": [
            *(python, "-m", "uvicorn", "--factory", "headway.service.prefect.server:app"),
            *("--host", host, "--port", str(prefect_port)),
        ],
        "warm": [python, "-P", warm, "serve", environment["HEADWAY_WARM"], *modules],
        "worker": [python, "-m", "prefect", "worker", "start", "--pool", "headway", "--name", f"headway-{os.getpid()}"],
        "web": [python, "-m", "headway.service.api.http_server", host, str(web_port)],
    }
    made = [
        Service(name, command, up.logs / f"{name}.log", alone if name == "server" else environment)
        for name, command in commands.items()
    ]
    return made[0], made[1], made[2], made[3]


def _environment(api_url: str) -> dict[str, str]:
    root = str(project_root())
    state = home()
    ours = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(state / "prefect")),
        "PREFECT_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "0.25",  # the default of 10 s would be most of a small release
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
        "HEADWAY_HOME": str(state),
        "HEADWAY_PROJECT": root,
        "HEADWAY_WARM": str(socket_directory(state) / "warm.sock"),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        # The programs of our own environment (git hooks, the demo's tools) are found by the checks too.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    return {**os.environ, **ours}


async def _register(environment: dict[str, str], log: Path) -> None:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headway.service.prefect.project",
            env=environment,
            cwd=environment["HEADWAY_PROJECT"],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            await asyncio.wait_for(process.wait(), START_DEADLINE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise ServiceUnavailable(f"blocks and deployments could not be registered:\n{last}", f"its log: {log}")


async def _until(url: str, service: Service | None) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:

        async def healthy() -> bool:
            try:
                return (await client.get(url)).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        await _poll(healthy, service, url)


async def _until_exists(path: Path, service: Service) -> None:
    async def there() -> bool:
        return path.exists()

    await _poll(there, service, str(path))


async def _until_worker(api_url: str, worker: Service) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:

        async def online() -> bool:
            answer = await client.post(f"{api_url}/work_pools/headway/workers/filter", json={})
            return any(known["status"] == "ONLINE" and known["name"] == worker.command[-1] for known in answer.json())

        await _poll(online, worker, "the worker")


async def _poll(ready: Callable[[], object], service: Service | None, what: str) -> None:
    name = service.name if service else what
    deadline = asyncio.get_running_loop().time() + START_DEADLINE
    while not await ready():  # type: ignore[misc]  # every caller passes a coroutine function
        if service and service.process and service.process.returncode is not None:
            raise ServiceUnavailable(f"{name} ended while starting:\n{service.last_words()}", f"its log: {service.log}")
        if asyncio.get_running_loop().time() > deadline:
            raise ServiceUnavailable(f"{name} is not healthy after {START_DEADLINE:g} s", f"asked: {what}")
        await asyncio.sleep(0.1)


def _refuse_second(state: Path) -> None:
    try:
        known = json.loads((state / "up.json").read_text())
    except FileNotFoundError:
        return
    if psutil.pid_exists(known["pid"]):
        raise ServiceUnavailable(
            f"headway is up already (pid {known['pid']}): {known['api_url'].removesuffix('/api')}",
            "stop that one with Ctrl-C, or give this one a HEADWAY_HOME of its own",
        )
