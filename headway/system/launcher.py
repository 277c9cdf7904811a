"""Run one program for a supervisor: `python -I -S launcher.py FILE`. Standard library only.

FILE is JSON: command, cwd, env, log, secrets (variables whose values are masked in the log). The launcher writes the
log, and exits when the last of the program's processes has exited. So an app that still finishes requests after SIGTERM
does not count as stopped when only its shell has exited.

The launcher survives its supervisor. A new supervisor starts a second launcher for the same FILE. That one finds the
first still running and acts as its proxy: it forwards SIGTERM and exits when the first does. The app keeps running.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOG_BYTES, LOG_FILES = 10_000_000, 4
LONGEST_LINE = 65_536


def main(file: str) -> int:
    """Run the program, or act as a proxy when it already runs. Returns its exit code, 0 for a proxy."""
    with open(f"{file}.pid", "a+") as pid:
        try:
            fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return stand_in(running(file))
        pid.truncate(0)
        pid.write(str(os.getpid()))
        pid.flush()
        with open(file) as content:
            return run(json.load(content))


def running(file: str) -> int | None:
    """Process group of the program that FILE describes; None when it is not running."""
    try:
        with open(f"{file}.pid") as pid:
            try:
                fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(pid.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def stand_in(group: int | None) -> int:
    """Forward SIGTERM to the launcher that leads this process group, and return when it exits."""
    if group is None:
        return 1
    try:
        other = os.pidfd_open(group)
    except ProcessLookupError:
        return 0
    with _woken_by(signal.SIGTERM) as woken:
        while other not in (ready := select.select([other, woken], [], [])[0]):
            if woken in ready:
                os.read(woken, 64)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGTERM)
    return 0


def run(what: dict[str, Any]) -> int:
    """Start the command, and log its output until its last process has exited."""
    system = ctypes.CDLL(None)
    system.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output, end = os.pipe()
    os.set_blocking(output, False)
    shell = os.fork()
    if not shell:
        system.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(end, 1)
        os.dup2(end, 2)
        os.chdir(what["cwd"])
        os.execve("/bin/sh", ["/bin/sh", "-c", what["command"]], what["env"])
    os.close(end)
    log = Log(Path(what["log"]), _masker([what["env"][name] for name in what["secrets"]]))
    # SIGTERM is sent to the whole group, so the program receives it too. The launcher waits for its end.
    signal.signal(signal.SIGTERM, lambda *_: None)
    code = 0
    with _woken_by(signal.SIGCHLD) as woken:
        while True:
            for ended, status in _reaped():
                if ended is None:
                    log.copy(output)
                    log.close()
                    return code
                if ended == shell:
                    code = os.waitstatus_to_exitcode(status)
                    code = 128 - code if code < 0 else code
            watched = [woken, output] if log.open else [woken]
            if woken in select.select(watched, [], [])[0]:
                os.read(woken, 64)
            log.copy(output)


def _reaped() -> Iterator[tuple[int | None, int]]:
    """Reap exited children: process id and status of each; (None, 0) when no child is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            yield None, 0
            return
        if not pid:
            return
        yield pid, status


class Log:
    """A log file of whole lines, each after its time in UTC (RFC 3339), rotated to .1, .2, ... at LOG_BYTES."""

    def __init__(self, path: Path, mask: Callable[[str], str] | None) -> None:
        self.path = path
        self.open = True
        self._mask = mask
        self._rest = b""
        self._file = path.open("ab", buffering=0)
        self._lost = 0

    def copy(self, pipe: int) -> None:
        """Copy the available output to the log. A full disk loses lines but does not stop the program."""
        while self.open:
            try:
                said = os.read(pipe, LONGEST_LINE)
            except BlockingIOError:
                return
            self.open = bool(said)
            lines = (self._rest + said).splitlines(keepends=True)
            self._rest = b""
            if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) < LONGEST_LINE:
                self._rest = lines.pop()
            for line in lines:
                self._write(line)

    def close(self) -> None:
        if self._rest:
            self._write(self._rest + b"\n")
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._mask:
            line = self._mask(line.decode(errors="replace")).encode()
        try:
            if self._lost:
                self._file.write(_stamp() + b"(%d lines lost: the disk was full)\n" % self._lost)
                self._lost = 0
            self._file.write(_stamp() + line)
            if self._file.tell() >= LOG_BYTES:
                self._rotate()
        except OSError:
            self._lost += 1

    def _rotate(self) -> None:
        for number in range(LOG_FILES - 1, 0, -1):
            older = Path(f"{self.path}.{number - 1}") if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                older.rename(f"{self.path}.{number}")
        self._file.close()
        self._file = self.path.open("ab", buffering=0)


def _stamp() -> bytes:
    now = time.time()
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(now % 1 * 1000):03d}Z ", time.gmtime(now)).encode()


def _masker(secrets: list[str]) -> Callable[[str], str] | None:
    if not secrets:
        return None
    sys.path.append(str(Path(__file__).parents[2]))
    from headway.system.redaction import Masker

    return Masker(secrets)


@contextlib.contextmanager
def _woken_by(number: signal.Signals) -> Iterator[int]:
    """A file descriptor that becomes readable when the signal arrives."""
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(waker)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
