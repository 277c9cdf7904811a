"""Flow runs that start without waiting for Python to import the world.

A worker starts a flow run with a command; a fresh interpreter spends seconds there importing Prefect and the flows.
Here that command is a small client (`fork_server.py run SOCKET`, standard library only, about 20 ms): it hands its
environment, working directory and output to a server that has imported everything already and forks. The client then
stands for the run: it passes signals on and exits as the run does. A client that is killed, which is all that a worker
does when it is stopped, has its run terminated: it has GRACE to bring back what it began to change, and is killed then.
Without a server the client becomes the ordinary, slower command, and says so.

Linux only: it rests on pidfd_open (5.3), fork and passing file descriptors over a Unix socket.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, NoReturn

ENGINE = "prefect.engine"
HEADER = struct.Struct("!I")
STATUS = struct.Struct("!i")
ENDING = (signal.SIGTERM, signal.SIGINT)
PR_SET_PDEATHSIG = 1
REQUEST_DEADLINE = 5.0  # seconds for a client to say what it wants; it takes a millisecond
GRACE = 30.0  # seconds between SIGTERM and SIGKILL, as long as Prefect's worker gives a run that is cancelled


def run(path: str) -> NoReturn:
    """Be one flow run: have it forked by the server on the socket `path`, or run it here."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        print(f"no warm process on {path} ({error.strerror}): starting a cold one", file=sys.stderr, flush=True)
        os.execv(sys.executable, [sys.executable, "-m", ENGINE])
    request = json.dumps({"env": dict(os.environ), "cwd": os.getcwd()}).encode()
    descriptors = array.array("i", [0, 1, 2])
    connection.sendmsg([HEADER.pack(len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: connection.sendall(bytes([received])))
    connection.sendall(request)
    answer = connection.recv(STATUS.size, socket.MSG_WAITALL)
    if len(answer) < STATUS.size:
        print("the warm process died and its flow runs with it", file=sys.stderr, flush=True)
        sys.exit(1)
    (status,) = STATUS.unpack(answer)
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL is always at its default
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


class _Run:
    """A forked flow run, leader of a process group, and the client that stands for it."""

    def __init__(self, pid: int, client: socket.socket) -> None:
        self.pid = pid
        self.client = client
        self.end = os.pidfd_open(pid)
        self.deadline = float("inf")

    def pass_on(self) -> bool:
        """Signals that the client received go to the run; False when the client is gone."""
        try:
            signals = self.client.recv(64)
        except ConnectionError:
            signals = b""
        for number in signals:
            self.send(number)
        return bool(signals)

    def send(self, number: int) -> None:
        """A run that is told to end has GRACE for it."""
        if number == signal.SIGTERM:
            self.deadline = min(self.deadline, time.monotonic() + GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell the run to end, unless it has been told."""
        if self.deadline == float("inf"):
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """The whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Tell the client how the run ended."""
        _, status = os.waitpid(self.pid, 0)
        if self.deadline != float("inf"):
            self.kill()  # it was told to end: so was whatever it started
        with contextlib.suppress(OSError):
            self.client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
        os.close(self.end)
        self.client.close()


def serve(path: str, modules: list[str]) -> None:
    """Import `modules`, then fork a flow run for every client of the Unix socket `path`, until SIGTERM or SIGINT.

    Runs that are going on then are terminated and waited for. Single-threaded, as forking demands.
    """
    for module in modules:
        importlib.import_module(module)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(128)
    stop, stopper = socket.socketpair()
    for number in ENDING:
        signal.signal(number, lambda *_: stopper.send(b"x"))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(stop, selectors.EVENT_READ)
    runs: list[_Run] = []
    stopping = False
    print(f"warm: {path}", flush=True)
    while runs or not stopping:
        due = min((run.deadline for run in runs), default=float("inf")) - time.monotonic()
        for key, _ in selector.select(None if due == float("inf") else max(0.0, due)):
            run = key.data
            if key.fileobj is stop:
                stop.recv(64)
                if not stopping:
                    stopping = True
                    selector.unregister(listener)
                    os.unlink(path)
                for run in runs:
                    run.terminate()
            elif key.fileobj is listener:
                client, _ = listener.accept()
                started = _fork_run(client, [listener, stop, stopper, *(run.client for run in runs)])
                if started is None:
                    client.close()
                    continue
                run = _Run(started, client)
                runs.append(run)
                if stopping:
                    run.terminate()
                selector.register(run.end, selectors.EVENT_READ, run)
                selector.register(client, selectors.EVENT_READ, run)
            elif key.fd == run.end:
                selector.unregister(run.end)
                with contextlib.suppress(KeyError):
                    selector.unregister(run.client)
                run.reap()
                runs.remove(run)
            elif run in runs and not run.pass_on():
                selector.unregister(run.client)
                run.terminate()
        for run in runs:
            if time.monotonic() >= run.deadline:
                run.kill()


def _fork_run(client: socket.socket, ours: list[socket.socket]) -> int | None:
    """Read the client's request and fork; returns the pid, or None when the client went away before it had said all."""
    descriptors = array.array("i")
    client.settimeout(REQUEST_DEADLINE)
    try:
        header, ancillary, _, _ = client.recvmsg(HEADER.size, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        (length,) = HEADER.unpack(header)
        request = json.loads(_received(client, length))
    except (OSError, struct.error, ValueError):
        _close(descriptors)
        return None
    client.settimeout(None)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the run has handlers of its own, they are the server's
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        with contextlib.suppress(OSError):  # whoever is first, parent or child: a client that goes now finds the group
            os.setpgid(pid, pid)
        _close(descriptors)
        return pid
    code: int = 1
    try:
        _become(request, list(descriptors), [client, *ours])
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = int(end.code) if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # the last words of a process that ends here
        traceback.print_exc()
    finally:
        # No interpreter shutdown: the server's own handlers at exit are not this process's to run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _received(client: socket.socket, length: int) -> bytes:
    """MSG_WAITALL does not wait on a socket with a timeout. Short when the client goes before it has said all."""
    said = b""
    while len(said) < length and (more := client.recv(length - len(said))):
        said += more
    return said


def _become(request: dict[str, Any], descriptors: list[int], not_ours: list[socket.socket]) -> None:
    """Turn a copy of the server into the run that the client asked for."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # nobody could tell its client how it ends
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for connection in not_ours:
        connection.close()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = [ENGINE]
    sys.modules.pop(ENGINE, None)  # it is run as __main__, and warns when it is there already
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _close(descriptors: array.array[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2])
    serve(sys.argv[2], sys.argv[3:])
