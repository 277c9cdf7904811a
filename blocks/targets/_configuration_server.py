"""The xDS server of a target, a program of its supervisor: see blocks.envoy.xds_server."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import httpx

from headway.domain.errors import TargetError
from headway.system import tls
from headway.system.supervisor import MARK, Program, Supervisor

__all__ = ["ConfigurationServer"]

PROGRAM = "xds"  # its name in the supervisor; every other has a hyphen in its name
START = 30.0  # seconds
POLL = 0.05  # seconds


class ConfigurationServer:
    """Serves the files of all Envoys of the target in the directory `home`."""

    def __init__(self, home: Path, supervisor: Supervisor) -> None:
        self.socket = supervisor.socket_directory / "xds.sock"
        self._home = home
        self._supervisor = supervisor

    def notify(self, app: str) -> None:
        """Tell it that files of the app have changed. It is started if it does not run."""
        try:
            self._post(f"/changed/{app}")
        except httpx.TransportError:
            self._start()

    def _start(self) -> None:
        """Start it and wait for it; Envoys then ask it for the present files. Raises TargetError."""
        log = self._home / "xds.log"
        words = [sys.executable, "-P", "-m", "blocks.envoy.xds_server", str(self._home), str(self.socket)]
        # In an installed Headway, blocks is not on the import path of a bare interpreter.
        environment = {"PYTHONPATH": str(Path(__file__).parents[2]), MARK: str(self._home)}
        command = f"exec {shlex.join(words)}"
        self._supervisor.start(
            Program(name=PROGRAM, command=command, env=environment, log=str(log), grace=2), keep=True
        )
        deadline = time.monotonic() + START
        while True:
            try:
                return self._post("/changed/-")
            except httpx.TransportError as error:
                if time.monotonic() >= deadline:
                    raise TargetError(
                        f"the server of Envoy's configuration does not start: {error}", f"its log: {log}"
                    ) from error
            time.sleep(POLL)

    def _post(self, path: str) -> None:
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=tls.for_url("http://xds"))
        with httpx.Client(transport=transport, timeout=5.0) as client:
            client.post(f"http://xds{path}").raise_for_status()
