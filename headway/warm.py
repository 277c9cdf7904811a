"""Flow runs that start without waiting for Python to import the world.

A worker starts a flow run with a command; a fresh interpreter spends seconds there importing Prefect and the flows.
Here that command is a small client (`python warm.py run SOCKET`, standard library only, about 20 ms): it hands its
environment, working directory and output to a server that has imported everything already and forks. The client then
stands for the run: it passes signals on and exits as the run does, and when it is killed the run is killed with it.
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
from typing import NoReturn

ENGINE = "prefect.engine"
HEADER = struct.Struct("!I")
STATUS = struct.Struct("!i")


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


def serve(path: str, modules: list[str]) -> None:
    """Import `modules`, then fork a flow run for every client of the Unix socket `path`, until SIGTERM or SIGINT.

    Single-threaded, as forking demands. Every run leads a process group of its own, which is killed when its client
    goes.
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
    runs: dict[int, tuple[int, socket.socket]] = {}  # pidfd or client's descriptor -> (pid, client)
    print(f"warm: {path}", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is stop:
                for going_on, _client in runs.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(going_on, signal.SIGTERM)
                os.unlink(path)
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                started = _fork_run(client, [listener, stop, stopper])
                if started is None:
                    client.close()
                    continue
                for descriptor in (os.pidfd_open(started), client.fileno()):
                    runs[descriptor] = (started, client)
                    selector.register(descriptor, selectors.EVENT_READ)
            elif key.fd in runs:
                pid, client = runs[key.fd]
                if key.fd == client.fileno():
                    _pass_on(pid, client, selector)
                else:
                    _, status = os.waitpid(pid, 0)
                    with contextlib.suppress(OSError):
                        client.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))
                    for descriptor in (key.fd, client.fileno()):
                        del runs[descriptor]
                        with contextlib.suppress(KeyError):
                            selector.unregister(descriptor)
                    os.close(key.fd)
                    client.close()


def _pass_on(pid: int, client: socket.socket, selector: selectors.BaseSelector) -> None:
    """Signals that the client received go to the run; a client that is gone takes the run's whole group with it."""
    try:
        signals = client.recv(64)
    except ConnectionError:
        signals = b""
    with contextlib.suppress(ProcessLookupError):
        if signals:
            for number in signals:
                os.kill(pid, number)
        else:
            selector.unregister(client.fileno())
            os.killpg(pid, signal.SIGKILL)


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
