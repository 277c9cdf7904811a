"""Services of this machine that workloads in a sandbox can use, with real servers and a real sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.errors import CommandFailed, UsageError
from headway.domain.workload import Finished, Workload
from headway.system.command_runner import clean_environment
from headway.system.runners.host import HostRunner
from headway.system.runners.sandbox import SandboxRunner
from headway.system.runners.services import Services, opened_services

VARIABLE = "HEADWAY_SANDBOX_SERVICES"
ASK = """
    import socket
    with socket.create_connection(("127.0.0.1", {port}), 10) as client:
        client.sendall(b"question" * 100_000)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer == b"QUESTION" * 100_000, answer[:20]
"""


@contextlib.contextmanager
def answering(server: socket.socket) -> Iterator[None]:
    """Answer each connection with what it sent, in upper case, when it has sent everything."""

    def answer(client: socket.socket) -> None:
        with client:
            client.sendall(b"".join(iter(lambda: client.recv(65536), b"")).upper())

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # closed: the end of the test
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with server:
        yield
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def port() -> Iterator[int]:
    server = socket.create_server(("127.0.0.1", 0))
    with answering(server):
        yield int(server.getsockname()[1])


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    if refusal := SandboxRunner().missing():
        pytest.skip(f"{refusal.what}: {refusal.hint}")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Workload("true", workspace, clean_environment(), 60.0, print, "try", home=tmp_path / "home", services=True)


def attempt(workload: Workload, program: str, **changes: bool) -> Finished:
    (workload.workspace / "attempt.py").write_text(textwrap.dedent(program))
    fields = {**vars(workload), **changes, "command": f"exec {sys.executable} -I attempt.py"}
    return asyncio.run(SandboxRunner().run(Workload(**fields)))


def test_an_opened_port_is_reached_at_the_same_address(
    workload: Workload, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f"127.0.0.1:{port}")
    finished = attempt(workload, ASK.format(port=port))
    assert finished.exit_code == 0, finished.tail


def test_other_ports_stay_closed(workload: Workload, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv(VARIABLE, str(port))
        finished = attempt(workload, ASK.format(port=other.getsockname()[1]))
    assert "ConnectionRefusedError" in finished.tail[-1]


@pytest.mark.parametrize("closed", [{"services": False}, {"network": False}])
def test_commands_of_forks_and_without_a_network_reach_none(
    workload: Workload, port: int, monkeypatch: pytest.MonkeyPatch, closed: dict[str, bool], tmp_path: Path
) -> None:
    path = tmp_path / "engine.sock"
    with answering(unix := socket.socket(socket.AF_UNIX)):
        unix.bind(str(path))
        unix.listen()
        monkeypatch.setenv(VARIABLE, f"{port},{path}")
        assert "ConnectionRefusedError" in attempt(workload, ASK.format(port=port), **closed).tail[-1]
        assert attempt(workload, f"import os; os.stat({str(path)!r})", **closed).exit_code != 0


def test_an_opened_unix_socket_is_reached(workload: Workload, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    unix.listen()
    with answering(unix):
        monkeypatch.setenv(VARIABLE, str(path))
        program = f"""
            import socket
            client = socket.socket(socket.AF_UNIX)
            client.connect({str(path)!r})
            client.sendall(b"ping")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b"PING"
        """
        finished = attempt(workload, program)
    assert finished.exit_code == 0, finished.tail


def test_a_service_that_is_down_ends_the_connection(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv(VARIABLE, str(port))
    program = f"import socket; assert socket.create_connection(('127.0.0.1', {port}), 10).recv(1) == b''"
    finished = attempt(workload, program)
    assert finished.exit_code == 0, finished.tail


def test_a_service_that_keeps_its_connection_does_not_keep_the_command(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and never answers nor closes
        port = server.getsockname()[1]
        monkeypatch.setenv(VARIABLE, str(port))
        finished = attempt(workload, f"import socket; socket.create_connection(('127.0.0.1', {port}), 10).send(b'1')")
    assert finished.exit_code == 0, finished.tail


def test_the_services_of_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        monkeypatch.setenv(VARIABLE, f"5432, localhost:6379,127.0.0.1:5432,,{path}")
        assert opened_services() == Services((5432, 6379), (path,))
    monkeypatch.delenv(VARIABLE)
    assert opened_services() == Services()


@pytest.mark.parametrize("entry", ["db.example.com:5432", "0", "65536", "10.0.0.1:80", "postgres", "/etc/passwd", "-1"])
def test_other_entries_are_refused(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv(VARIABLE, f"80,{entry}")
    with pytest.raises(UsageError, match=rf"HEADWAY_SANDBOX_SERVICES: '?{entry}"):
        opened_services()


def test_the_host_runner_refuses_a_command_that_must_not_have_a_network(tmp_path: Path) -> None:
    closed = Workload("touch ran", tmp_path, {}, 60.0, print, "unit", network=False)
    with pytest.raises(CommandFailed, match=r"unit: its `network` is limited, which the host runner cannot do"):
        asyncio.run(HostRunner().run(closed))
    assert not (tmp_path / "ran").exists()
