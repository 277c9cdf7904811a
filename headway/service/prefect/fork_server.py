"""Fork server: flow runs start in a process that has imported Prefect and the flows already.

A worker starts a flow run with a command, and a new interpreter needs seconds to import Prefect and the flows. Here
the command is a small client (`fork_server.py run SOCKET`, standard library only, about 20 ms). It sends its
environment, working directory and file descriptors to the server, which forks. The client then forwards signals to
the run and exits with its exit code. When the client is killed, which is how a worker stops, the server terminates
the run: SIGTERM, GRACE seconds to roll back, SIGKILL. Without a server the client executes the ordinary, slower
command and prints a message.

Linux only: it uses pidfd_open (5.3), fork, and file descriptors over a Unix socket.
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
REQUEST_DEADLINE = 5.0  # seconds for the request of a client, which takes a millisecond
GRACE = 30.0  # seconds between SIGTERM and SIGKILL, as long as Prefect's worker gives a run that is cancelled


def run(path: str) -> NoReturn:
    """Run one flow run: forked by the server on the socket `path`, or in this process if there is none."""
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
    """A forked flow run, which leads a process group, and its client."""

    def __init__(self, pid: int, client: socket.socket) -> None:
        self.pid = pid
        self.client = client
        self.end = os.pidfd_open(pid)
        self.deadline = float("inf")

    def forward_signals(self) -> bool:
        """Forward the signals that the client received; False when the client has ended."""
        try:
            signals = self.client.recv(64)
        except ConnectionError:
            signals = b""
        for number in signals:
            self.send(number)
        return bool(signals)

    def send(self, number: int) -> None:
        """Send a signal. SIGTERM starts the deadline of GRACE seconds."""
        if number == signal.SIGTERM:
            self.deadline = min(self.deadline, time.monotonic() + GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM, once."""
        if self.deadline == float("inf"):
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Send the exit status to the client."""
        _, status = os.waitpid(self.pid, 0)
        if self.deadline != float("inf"):
            self.kill()  # also the processes that the run has started
        with contextlib.suppress(OSError):
            self.client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
        os.close(self.end)
        self.client.close()


def serve(path: str, modules: list[str]) -> None:
    """Import `modules`, then fork a flow run for every client of the Unix socket `path`, until SIGTERM or SIGINT.

    Then terminate the runs and wait for them. Single-threaded, because threads do not survive a fork.
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
            elif run in runs and not run.forward_signals():
                selector.unregister(run.client)
                run.terminate()
        for run in runs:
            if time.monotonic() >= run.deadline:
                run.kill()


def _fork_run(client: socket.socket, ours: list[socket.socket]) -> int | None:
    """Read the request and fork. Returns the pid, or None when the client ended before the request was complete."""
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
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the run has replaced the server's handlers
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        with contextlib.suppress(OSError):  # parent and child both do this, so that the group exists in either order
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
    except BaseException:  # noqa: BLE001  # the process ends here: print every error
        traceback.print_exc()
    finally:
        # No interpreter shutdown: it would run the exit handlers of the server.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _received(client: socket.socket, length: int) -> bytes:
    """Read `length` bytes, fewer when the client ends. (MSG_WAITALL does not wait on a socket with a timeout.)"""
    data = b""
    while len(data) < length and (more := client.recv(length - len(data))):
        data += more
    return data


def _become(request: dict[str, Any], descriptors: list[int], to_close: list[socket.socket]) -> None:
    """Turn the forked copy of the server into the requested run."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(
        PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0
    )  # without the server no client learns the exit status
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for connection in to_close:
        connection.close()
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = [ENGINE]
    sys.modules.pop(ENGINE, None)  # runpy warns if a module that it runs is imported
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
