"""The Envoys of one target: their files, their ports, and the supervisor that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from blocks.envoy.proxy import Edge
from blocks.envoy.xds import Backend
from blocks.targets import _ports
from blocks.targets._app_state import AppState, endpoints
from blocks.targets._configuration_server import ConfigurationServer
from headway.domain.errors import TargetError
from headway.domain.revision import LaunchSpec
from headway.system import ports_in_use
from headway.system.supervisor import MARK, Program, Supervisor

__all__ = ["Proxies", "log_path", "make_directories"]


def make_directories(directory: Path) -> None:
    """The directories of an app: its Envoy's files, its logs."""
    for name in ("envoy", "logs"):
        (directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)


def log_path(directory: Path, name: str) -> str:
    """Log of a program of the app with this directory."""
    return str(directory / "logs" / f"{name}.log")


class Proxies:
    """One Envoy for each app, listening on `host`. `trusted`: networks of proxies in front of them."""

    def __init__(self, home: Path, host: str, trusted: Sequence[str]) -> None:
        self._home = home
        self._host = host
        self._trusted = trusted
        self._supervisor = Supervisor(home)

    def directory(self, app: str) -> Path:
        return self._home / "apps" / app

    def program(self, app: str) -> str:
        """Name of the app's Envoy in the supervisor."""
        return f"{app}-edge"

    def edge(self, app: str) -> Edge:
        server = ConfigurationServer(self._home, self._supervisor)
        return Edge(
            app,
            self.directory(app) / "envoy",
            socket=self._supervisor.socket_directory / f"{app}.admin",
            log=Path(log_path(self.directory(app), self.program(app))),
            server=server.socket,
            changed=lambda: server.notify(app),
        )

    def running(self, app: str, state: AppState) -> Edge:
        """Envoy, running with its last configuration, and answering."""
        make_directories(self.directory(app))
        edge = self.edge(app)
        edge.prepare()
        if not edge.has_listeners:  # its files are lost, and with them the routes
            self.listen(app, state)
            self.write_clusters(app, state)
        if not self._supervisor.running or not edge.answers:
            name = self.program(app)
            self._supervisor.start(
                Program(
                    name=name,
                    command=edge.command,
                    env={MARK: str(self._home)},
                    log=log_path(self.directory(app), name),
                    grace=5,
                ),
                keep=True,
            )
            edge.await_start()
        return edge

    def listen(self, app: str, state: AppState) -> None:
        """Listen on the ports of the state."""
        assert state.port
        assert state.preview_port
        self.edge(app).listen(self._host, state.port, state.preview_port, self._trusted)

    def write_clusters(self, app: str, state: AppState) -> None:
        self.edge(app).set_clusters(
            {
                revision: Backend(spec.health, spec.http, spec.identity, endpoints(instances))
                for revision, instances in state.instances.items()
                for spec in [state.specs[revision]]
            }
        )

    def stop(self, app: str) -> None:
        self._supervisor.stop(self.program(app))

    def run(self, app: str) -> str | None:
        """Different each time the Envoy is started; None while it does not run."""
        pid = self._supervisor.pid(self.program(app))
        return str(pid) if pid else None

    def choose_ports(self, app: str, state: AppState, spec: LaunchSpec) -> None:
        """Set the ports of headway.yaml, or reserve some for the app. Raises TargetError when one is taken."""
        state.port = self._port(app, state, spec, "port")
        state.preview_port = self._port(app, state, spec, "preview_port")
        self.listen(app, state)

    def _port(self, app: str, state: AppState, spec: LaunchSpec, field: Literal["port", "preview_port"]) -> int:
        current: int | None = getattr(state, field)
        wanted: int | None = getattr(spec, field) or current
        if wanted is None:
            return _ports.reserve_public(self.directory(app), self._host, (state.port, state.preview_port))
        if wanted != current and not ports_in_use.is_free(self._host, wanted):
            raise TargetError(
                f"environments/{spec.environment}/{field}: {wanted} on {self._host} is taken by "
                f"{ports_in_use.owner(wanted)}",
                "stop it, or choose another port",
            )
        _ports.hold(self.directory(app), wanted)
        return wanted
