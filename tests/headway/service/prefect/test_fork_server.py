"""The fork server and its clients, as real processes. What they run is a stand-in for Prefect's engine."""

from __future__ import annotations

import array
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headway.service.prefect import fork_server

pytestmark = pytest.mark.slow

WARM = Path(fork_server.__file__)
DEADLINE = 60.0  # seconds, for everything that is waited for
MARK = "HEADWAY_TEST_WARM"
ENGINE = """
import atexit, os, signal, subprocess, sys, time

if __name__ == "__main__":
    exec(os.environ["PROGRAM"])
else:
    atexit.register(print, "the server's, and no run's to say")
"""
# Pieces of programs for the engine to run.
READY = "print('ready', os.getpid(), flush=True)\n"
SLEEP = "time.sleep(60)\n"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
# It may go when there is a file named go-on.
TIDY = """
def tidy(number, _):
    print("tidying", flush=True)
    while not os.path.exists("go-on"): time.sleep(0.01)
    print("tidied", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, tidy)
"""
# A child that is deaf to SIGTERM.
CHILD = """
program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
child.stdout.readline()
print("child", child.pid)
"""


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, f"waited too long: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def dies(pid: int) -> None:
    until(lambda: not alive(pid), f"process {pid} to die")


class Client:
    """One `fork_server.py run`, and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str) -> str:
        """Wait for a whole line with this text; returns the rest of the line."""
        until(lambda: any(text in line for line in self._lines()), f"{text!r}, got {self.out!r}, {self.err!r}")
        return next(line.partition(text)[2] for line in self._lines() if text in line)

    def ready(self) -> int:
        """Wait for READY; returns the pid of the run."""
        return int(self.says("ready"))

    def ends(self) -> int:
        return self.process.wait(DEADLINE)

    def _lines(self) -> list[str]:
        return [line for line in self.out.splitlines(keepends=True) if line.endswith("\n")]


class Warm:
    """A server on a socket of its own, and its clients."""

    def __init__(self, place: Path, tmp_path: Path) -> None:
        package = tmp_path / "path" / "prefect"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "engine.py").write_text(ENGINE)
        self.path = package.parent
        self.socket = place / "warm.sock"
        self.tmp_path = tmp_path
        self.clients: list[Client] = []
        self.servers: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.path),
            MARK: str(place),
        }

    @property
    def server(self) -> subprocess.Popen[bytes]:
        return self.servers[-1]

    def serve(self, grace: float | None = None) -> subprocess.Popen[bytes]:
        """As `headway up` does; or with another GRACE."""
        command: list[str | Path] = [WARM, "serve"]
        if grace is not None:
            start = f"import sys, fork_server as it; it.GRACE = {grace}; it.serve(sys.argv[1], sys.argv[2:])"
            command = ["-c", start]
        log = self.tmp_path / f"server{len(self.servers)}.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, *command, self.socket, "prefect.engine"],
                env={**self.environment, "PYTHONPATH": f"{self.path}:{WARM.parent}", "OF_THE_SERVER": "yes"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.servers.append(server)
        until(lambda: "warm: " in log.read_text() or server.poll() is not None, "the server")
        assert server.poll() is None, log.read_text()
        return server

    def start(
        self,
        program: str,
        environment: dict[str, str] | None = None,
        *,
        cwd: Path | None = None,
        stdin: Path = Path(os.devnull),
    ) -> Client:
        out, err = (self.tmp_path / f"client{len(self.clients)}.{name}" for name in ("out", "err"))
        with out.open("wb") as to_out, err.open("wb") as to_err, stdin.open("rb") as from_in:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", WARM, "run", self.socket],
                env={**self.environment, "PROGRAM": program, **(environment or {})},
                cwd=cwd or self.tmp_path,
                stdin=from_in,
                stdout=to_out,
                stderr=to_err,
            )
        client = Client(process, out, err)
        self.clients.append(client)
        return client

    def says_hello(self) -> None:
        """Check that the server runs and starts a run."""
        client = self.start("print('hello', os.getppid())")
        assert client.ends() == 0, client.err
        assert client.out == f"hello {self.server.pid}\n"

    def close(self) -> None:
        for ours in (*(client.process for client in self.clients), *self.servers):
            ours.kill()
            ours.wait(DEADLINE)
        for left in self._left():
            left.kill()
        until(lambda: not self._left(), "the last processes to die")

    def _left(self) -> list[psutil.Process]:
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.environment[MARK] and alive(process.pid):
                    left.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return left


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Warm]:
    """A server that is not started yet."""
    place = Path(tempfile.mkdtemp(prefix="headway-"))  # a socket's path has 107 bytes
    made = Warm(place, tmp_path)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(place)


@pytest.fixture
def served(cold: Warm) -> Warm:
    cold.serve()
    return cold


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# --- a run like any other --------------------------------------------------------------------------------------------


def test_a_run_is_forked_by_the_server(served: Warm) -> None:
    served.says_hello()
    assert Path(served.socket).stat().st_mode & 0o777 == 0o600


def test_output_errors_and_exit_code_arrive(served: Warm) -> None:
    client = served.start("print('one'); print('two', file=sys.stderr); os.write(1, b'three\\n'); sys.exit(7)")
    assert client.ends() == 7
    assert sorted(client.out.split()) == ["one", "three"]
    assert client.err.splitlines()[-1] == "two"


def test_client_prints_only_the_output_of_the_run(served: Warm) -> None:
    client = served.start("print('one')")
    assert client.ends() == 0
    assert (client.out, client.err) == ("one\n", "")


def test_run_has_the_clients_directory_and_environment(served: Warm) -> None:
    place = served.tmp_path / "elsewhere"
    place.mkdir()
    client = served.start(
        "print(os.getcwd(), os.environ.get('NAME'), os.environ.get('OF_THE_SERVER'))", {"NAME": "ä b\nc"}, cwd=place
    )
    assert client.ends() == 0
    assert client.out == f"{place} ä b\nc None\n"


def test_child_of_the_run_has_the_clients_environment(served: Warm) -> None:
    client = served.start("subprocess.run(['sh', '-c', 'echo $NAME $OF_THE_SERVER.'], check=True)", {"NAME": "one"})
    assert client.ends() == 0
    assert client.out == "one .\n"


def test_a_large_environment_arrives_whole(served: Warm) -> None:
    large = {f"LARGE{number}": str(number) * 100_000 for number in range(8)}
    client = served.start("print(sum(len(os.environ[f'LARGE{number}']) for number in range(8)))", large)
    assert client.ends() == 0
    assert client.out == "800000\n"


def test_run_has_the_clients_standard_input(served: Warm) -> None:
    text = served.tmp_path / "input"
    text.write_text("typed")
    client = served.start("print(sys.stdin.read())", stdin=text)
    assert client.ends() == 0
    assert client.out == "typed\n"


@pytest.mark.parametrize(
    ("program", "code"),
    [("pass", 0), ("sys.exit()", 0), ("sys.exit(255)", 255), ("os._exit(3)", 3), ("sys.exit([])", 1)],
)
def test_client_returns_the_exit_code_of_the_run(served: Warm, program: str, code: int) -> None:
    assert served.start(program).ends() == code


def test_exit_message_is_printed(served: Warm) -> None:
    client = served.start("sys.exit('no such flow')")
    assert client.ends() == 1
    assert "no such flow" in client.err


def test_exception_is_printed_with_its_traceback(served: Warm) -> None:
    client = served.start("raise LookupError('no such flow')")
    assert client.ends() == 1
    assert "LookupError: no such flow" in client.err


def test_runs_do_not_affect_each_other(served: Warm) -> None:
    assert served.start("os.chdir('/'); sys.path.clear(); os.environ['LEFT'] = 'yes'; sys.modules.clear()").ends() == 0
    client = served.start("print(os.getcwd(), os.environ.get('LEFT'))")
    assert client.ends() == 0
    assert client.out == f"{served.tmp_path} None\n"


def test_concurrent_clients_all_succeed(served: Warm) -> None:
    # Each waits for all the others to be there.
    program = (
        "open('here' + os.environ['N'], 'w').close()\n"
        "while len([one for one in os.listdir('.') if one.startswith('here')]) < 8: time.sleep(0.01)\n"
        "print('I am', os.environ['N'])\n"
        "sys.exit(int(os.environ['N']))\n"
    )
    clients = [served.start(program, {"N": str(number)}) for number in range(8)]
    assert [client.ends() for client in clients] == list(range(8))
    assert [client.out for client in clients] == [f"I am {number}\n" for number in range(8)]
    served.says_hello()


def test_no_descriptor_or_process_leaks(served: Warm) -> None:
    before = descriptors(served.server.pid)
    for _ in range(3):
        served.says_hello()
    killed = served.start(READY + SLEEP)
    run = killed.ready()
    killed.process.kill()
    killed.ends()
    dies(run)
    served.says_hello()
    until(lambda: descriptors(served.server.pid) == before, "the descriptors to be closed")
    assert psutil.Process(served.server.pid).children() == []


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_client_reaches_the_run(served: Warm, number: signal.Signals) -> None:
    program = "def tidy(number, _): print('got', number); sys.exit(5)\n"
    client = served.start(f"{program}signal.signal({int(number)}, tidy)\n{READY}{SLEEP}")
    client.ready()
    client.process.send_signal(number)
    assert client.ends() == 5
    assert f"got {int(number)}\n" in client.out
    served.says_hello()


def test_signals_are_forwarded_in_order(served: Warm) -> None:
    program = (
        "got = []\nfor one in (1, 2, 15): signal.signal(one, lambda number, _: print('got', number, flush=True))\n"
    )
    client = served.start(f"{program}{READY}while True: time.sleep(1)")
    client.ready()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        client.process.send_signal(number)
        client.says(f"got {int(number)}")
    assert client.process.poll() is None


def test_run_that_ignores_sigterm_continues_and_so_does_its_client(served: Warm) -> None:
    go_on = served.tmp_path / "go-on"
    client = served.start(f"{DEAF}{READY}while not os.path.exists('go-on'): time.sleep(0.01)\nprint('done')")
    client.ready()
    client.process.terminate()
    served.says_hello()
    go_on.touch()
    assert client.ends() == 0
    assert "done" in client.out


def test_run_gets_sigterm_when_its_client_is_killed(served: Warm) -> None:
    client = served.start(TIDY + READY + SLEEP)
    run = client.ready()
    client.process.kill()
    client.says("tidying")
    served.says_hello()
    (served.tmp_path / "go-on").touch()
    client.says("tidied")
    dies(run)


def test_killed_client_ends_the_process_group_of_its_run(cold: Warm) -> None:
    cold.serve(grace=0.2)
    client = cold.start(DEAF + CHILD + READY + SLEEP)
    pids = client.ready(), int(client.says("child"))
    other = cold.start(READY + SLEEP)
    untouched = other.ready()
    client.process.kill()
    for pid in pids:
        dies(pid)
    assert alive(untouched)
    cold.says_hello()


def test_no_process_of_the_group_survives_a_killed_client(cold: Warm) -> None:
    cold.serve(grace=0.2)
    client = cold.start(CHILD + READY + SLEEP)
    pids = client.ready(), int(client.says("child"))
    client.process.kill()
    for pid in pids:
        dies(pid)


def test_run_that_ignores_sigterm_is_killed_after_the_grace_time(cold: Warm) -> None:
    cold.serve(grace=0.2)
    client = cold.start(DEAF + CHILD + READY + SLEEP)
    pids = client.ready(), int(client.says("child"))
    client.process.terminate()
    for pid in pids:
        dies(pid)
    assert client.ends() != 0
    cold.says_hello()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1])
def test_client_dies_from_the_same_signal_as_its_run(served: Warm, number: signal.Signals) -> None:
    assert served.start(f"os.kill(os.getpid(), {int(number)}); {SLEEP}").ends() == -number
    served.says_hello()


def test_sigterm_to_the_client_of_a_run_without_a_handler_ends_both(served: Warm) -> None:
    client = served.start(READY + SLEEP)
    run = client.ready()
    client.process.terminate()
    assert client.ends() == -signal.SIGTERM
    dies(run)


def test_signal_before_the_fork_ends_only_that_run(served: Warm) -> None:
    # So it is when a run is cancelled whose client still waits for its turn.
    for _ in range(20):
        with connect(served) as connection:
            ask(connection, served, SLEEP, bytes([signal.SIGTERM]))
            assert connection.recv(fork_server.STATUS.size) == fork_server.STATUS.pack(-signal.SIGTERM)
    served.says_hello()


# --- clients that do not behave --------------------------------------------------------------------------------------


def connect(served: Warm) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(DEADLINE)
    connection.connect(str(served.socket))
    return connection


def ask(connection: socket.socket, served: Warm, program: str, *more: bytes) -> None:
    """Send a client's request, with changes."""
    request = json.dumps({"env": {**served.environment, "PROGRAM": program}, "cwd": str(served.tmp_path)}).encode()
    with Path(os.devnull).open("r+b") as null:
        handed = array.array("i", [null.fileno()] * 3)
        said = b"".join([fork_server.HEADER.pack(len(request)), request, *more])
        connection.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)])


@pytest.mark.parametrize(
    "said", [b"", b"\0", fork_server.HEADER.pack(100), fork_server.HEADER.pack(100) + b"{", b"\0\0\0\1{"]
)
def test_client_that_disconnects_early_does_no_harm(served: Warm, said: bytes) -> None:
    before = descriptors(served.server.pid)
    for _ in range(3):
        with connect(served) as connection, Path(os.devnull).open("rb") as null:
            handed = array.array("i", [null.fileno()] * 3)
            if said:
                connection.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handed)])
    served.says_hello()
    until(lambda: descriptors(served.server.pid) == before, "the descriptors to be closed")


def test_shutdown_new_client_and_exit_at_the_same_time(served: Warm) -> None:
    # The server finds all three at once, and the new client has the descriptor of the dead one.
    first = served.start(READY + SLEEP)
    run = first.ready()
    served.server.send_signal(signal.SIGSTOP)
    os.kill(run, signal.SIGKILL)
    until(lambda: not alive(run), "the run to die")
    second = connect(served)
    ask(second, served, "sys.exit(4)")
    first.process.kill()
    first.ends()
    served.server.send_signal(signal.SIGCONT)
    with second:
        assert second.recv(fork_server.STATUS.size) == fork_server.STATUS.pack(4)
    served.says_hello()


# --- without a server, and when it goes ------------------------------------------------------------------------------


def test_without_a_server_the_run_starts_cold_with_a_warning(cold: Warm) -> None:
    place = cold.tmp_path / "elsewhere"
    place.mkdir()
    client = cold.start("print(os.getpid(), os.getcwd(), os.environ['NAME']); sys.exit(7)", {"NAME": "one"}, cwd=place)
    assert client.ends() == 7
    assert client.out == f"{client.process.pid} {place} one\n"
    assert client.err.startswith(f"no warm process on {cold.socket} (No such file or directory): starting a cold one\n")


def test_stale_socket_is_ignored(cold: Warm) -> None:
    cold.serve().kill()
    cold.server.wait(DEADLINE)
    assert cold.socket.exists()
    client = cold.start("print('hello')")
    assert client.ends() == 0
    assert client.out == "hello\n"
    assert "(Connection refused): starting a cold one" in client.err
    cold.serve()
    cold.says_hello()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_removes_its_socket_on_sigterm(served: Warm, number: signal.Signals) -> None:
    served.server.send_signal(number)
    assert served.server.wait(DEADLINE) == 0
    assert not served.socket.exists()


def test_server_forwards_sigterm_and_waits_for_its_runs(served: Warm) -> None:
    clients = [served.start(TIDY + READY + SLEEP) for _ in range(3)]
    for client in clients:
        client.ready()
    served.server.terminate()
    for client in clients:
        client.says("tidying")
    assert not served.socket.exists()
    assert served.server.poll() is None
    (served.tmp_path / "go-on").touch()
    assert [client.ends() for client in clients] == [0, 0, 0]
    assert ["tidied" in client.out for client in clients] == [True, True, True]
    assert served.server.wait(DEADLINE) == 0


def test_run_gets_sigterm_only_once(served: Warm) -> None:
    client = served.start(TIDY + READY + SLEEP)
    client.ready()
    client.process.terminate()
    client.says("tidying")
    served.server.terminate()
    until(lambda: not served.socket.exists(), "the socket to go")
    (served.tmp_path / "go-on").touch()
    assert client.ends() == 0
    assert client.out.count("tidying") == 1
    assert served.server.wait(DEADLINE) == 0


def test_server_kills_runs_that_ignore_sigterm(cold: Warm) -> None:
    cold.serve(grace=0.2)
    run = cold.start(DEAF + READY + SLEEP).ready()
    cold.server.terminate()
    assert cold.server.wait(DEADLINE) == 0
    assert not alive(run)


def test_client_of_a_killed_server_fails_with_a_message(served: Warm) -> None:
    client = served.start(READY + SLEEP)
    client.ready()
    served.server.kill()
    assert client.ends() == 1
    assert client.err.endswith("the warm process died and its flow runs with it\n")


def test_every_client_of_a_server_that_is_killed_fails(served: Warm) -> None:
    clients = [served.start(READY + SLEEP) for _ in range(3)]
    for client in clients:
        client.ready()
    served.server.kill()
    assert [client.ends() for client in clients] == [1, 1, 1]


def test_the_runs_of_a_server_that_is_killed_die_with_it(served: Warm) -> None:
    run = served.start(READY + SLEEP).ready()
    served.server.kill()
    dies(run)
