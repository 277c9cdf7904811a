"""Flow runs that start without waiting for Python to import the world.

A worker starts a flow run with a command; a fresh interpreter spends seconds there importing Prefect and the flows.
Here that command is a small client (`python warm.py run SOCKET`, standard library only, about 20 ms): it hands its
environment, working directory and output to a server that has imported everything already and forks. The client then
stands for the run: it passes signals on and exits as the run does. A client that is killed, which is all that a worker
does when it is stopped, has its run terminated: it has GRACE to bring back what it began to change, and is killed then.
Without a server the client becomes the ordinary, slower command, and says so.

Linux only: it rests on pidfd_open (5.3), fork and passing file descriptors over a Unix socket.
"""

from __future__ import annotations

import array
import contextlib
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
from typing import NoReturn

ENGINE = "prefect.engine"
HEADER = struct.Struct("!I")
STATUS = struct.Struct("!i")
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
    for number in (signal.SIGTERM, signal.SIGINT):
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
                started = _fork_run(client, [listener, stop, stopper])
                if started is None:
                    client.close()
                    continue
                run = _Run(started, client)
                runs.append(run)
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
    try:
        header, ancillary, _, _ = client.recvmsg(HEADER.size, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        (length,) = HEADER.unpack(header)
        request = json.loads(client.recv(length, socket.MSG_WAITALL))
    except (OSError, struct.error, ValueError):
        return None
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # whoever is first, parent or child: a client that goes now finds the group
            os.setpgid(pid, pid)
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code: int = 1
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        for connection in (client, *ours):
            connection.close()
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.argv = [ENGINE]
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = int(end.code) if isinstance(end.code, int) else int(end.code is not None)
    finally:
        # No interpreter shutdown: the server's own handlers at exit are not this process's to run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2])
    serve(sys.argv[2], sys.argv[3:])
