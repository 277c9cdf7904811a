"""Run one program for a supervisor: `python -I -S launcher.py FILE`. Standard library only.

FILE is JSON: command, cwd, env, log, secrets (variables whose values are masked in the log), grace in seconds, health
(settings of headway.system.instance_health, or null), digest (of the bundle in cwd, or null). The launcher writes the
log, and exits when the last of the program's processes has exited. So an app that still finishes requests after SIGTERM
does not count as stopped when only its shell has exited.

No process outlives its program. Orphans become children of the launcher, in whatever session they are. After SIGTERM,
and when the shell has failed, it ends them all: SIGTERM, the grace, SIGKILL. Those of a launcher that was itself killed
have its mark in their environment: the next one ends them before it starts the program.

The supervisor starts the launcher again whenever it exits. A program that ends within UP_AFTER seconds, or before its
first health check has passed, is started again after a pause that doubles up to LONGEST_PAUSE, for ever if the file
FILE.keep exists. Otherwise the launcher exits with GAVE_UP after TRIES of them, and the supervisor leaves it stopped.

Before each start the bundle is compared with its digest. A program whose bundle was changed is not started; that counts
as a failure, with CHANGED as exit code.

The launcher survives its supervisor. A new supervisor starts a second launcher for the same FILE. That one finds the
first still running and acts as its proxy: it forwards SIGTERM, and exits when the first or its supervisor does.
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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MARK = "HEADWAY_PROGRAM"
TRIES = 2  # of a program that is not kept
CHANGED, GAVE_UP = 98, 99  # exit codes
UP_AFTER = 10.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
GRACE = 10.0  # seconds, in a FILE that names none
LEFT_OVER = 5.0  # seconds of grace, at most, for processes of an earlier launcher
SHOWN = 10  # changes of a bundle, in the log
LOG_BYTES, LOG_FILES = 10_000_000, 4
LONGEST_LINE = 65_536


def main(file: str) -> int:
    """Run the program, or act as a proxy when it already runs. Returns its exit code, 0 for a proxy."""
    with open(f"{file}.pid", "a+") as pid:
        try:
            fcntl.flock(pid, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return stand_in(file)
        pid.truncate(0)
        pid.write(str(os.getpid()))
        pid.flush()
        with open(file) as content:
            what = json.load(content)
        end_left_overs(file, min(LEFT_OVER, what.get("grace", GRACE)))
        return retried(file, what)


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


def stand_in(file: str) -> int:
    """Forward SIGTERM to the launcher that runs the program of FILE, and return when it exits.

    It ends with its supervisor: the next one starts another.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    group = running(file)
    if group is None or _orphaned(file):
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


def _orphaned(file: str) -> bool:
    """Whether the supervisor had died before it was asked to take this process along."""
    try:
        return int((Path(file).parents[1] / "supervisord.pid").read_text()) != os.getppid()
    except FileNotFoundError:  # started without a supervisor
        return False


def retried(file: str, what: dict[str, Any]) -> int:
    """Run the program after the pause that its earlier failures call for. Returns the exit code for the supervisor."""
    tries, _ = failures(file)
    if tries and _stopped_within(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1))):
        return 0
    begun = time.monotonic()
    healthy = threading.Event()
    code, stopped = (CHANGED, False) if _is_changed(what) else run(what, file, healthy)
    was_up = time.monotonic() - begun >= UP_AFTER and (healthy.is_set() or not what.get("health"))
    tries = 0 if stopped or was_up else tries + 1
    Path(f"{file}.failures").write_text(f"{tries} {code}")
    if tries >= TRIES and not Path(f"{file}.keep").exists():
        return GAVE_UP
    return 1 if code == GAVE_UP else code


def _is_changed(what: dict[str, Any]) -> bool:
    """Whether the bundle is not the one that was built. Then its log says what was changed."""
    if not what.get("digest"):
        return False
    _import_headway()
    from headway.system import sealed_tree

    place = Path(what["cwd"])
    digest = what["digest"].removeprefix("sha256:")
    try:
        changed = sealed_tree.changes(place, digest, sealed_tree.manifest_file(place))
    except Exception as error:  # noqa: BLE001 - whatever cannot be read is not what was built
        changed = [str(error)]
    if changed:
        log = Log(Path(what["log"]), None)
        for change in changed[:SHOWN]:
            log.write(f"headway: not started: the bundle was changed after its build: {change}\n".encode())
        log.close()
    return bool(changed)


def failures(file: str) -> tuple[int, int]:
    """How often in a row the program has ended soon after its start, and its last exit code."""
    try:
        tries, code = Path(f"{file}.failures").read_text().split()
        return int(tries), int(code)
    except (FileNotFoundError, ValueError):  # half of it was written when the disk was full
        return 0, 0


def _stopped_within(pause: float) -> bool:
    """Wait. Returns whether SIGTERM ended the wait."""
    with _woken_by(signal.SIGTERM) as woken:
        return bool(select.select([woken], [], [], pause)[0])


def run(what: dict[str, Any], file: str, healthy: threading.Event) -> tuple[int, bool]:
    """Start the command, and log its output until its last process has exited: its exit code, whether by SIGTERM.

    `healthy` is set when its first health check has passed.
    """
    system = ctypes.CDLL(None)
    system.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output, end = os.pipe()
    os.set_blocking(output, False)
    stop = Stop(what.get("grace", GRACE))
    with _woken_by(signal.SIGCHLD) as woken:
        # SIGTERM is sent to the whole group, so the program receives it too. The launcher waits for its end.
        signal.signal(signal.SIGTERM, lambda *_: stop.by_signal())
        shell = os.fork()
        if not shell:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            system.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            become(what, file, end)
        os.close(end)
        _answer_health_checks(what, healthy)
        log = Log(Path(what["log"]), _masker([what["env"][name] for name in what["secrets"]]))
        code = 0
        while True:
            for ended, status in _reaped():
                if ended is None:
                    log.copy(output)
                    log.close()
                    return code, stop.signalled
                if ended == shell:
                    code = os.waitstatus_to_exitcode(status)
                    code = 128 - code if code < 0 else code
                    if code:  # with 0 it may have gone to the background
                        stop.begin()
            watched = [woken, output] if log.open else [woken]
            if woken in select.select(watched, [], [], stop.advance())[0]:
                os.read(woken, 64)
            log.copy(output)


def _answer_health_checks(what: dict[str, Any], healthy: threading.Event) -> None:
    if settings := what.get("health"):
        _import_headway()
        from headway.system.instance_health import HealthResponder

        HealthResponder(settings, descendants, healthy.set).start()


def _import_headway() -> None:
    """Make `import headway` work: -I and -S leave it out of the path. Its modules of the standard library alone do."""
    place = str(Path(__file__).parents[2])
    if place not in sys.path:
        sys.path.append(place)


def become(what: dict[str, Any], file: str, output: int) -> None:
    """Replace this process, the forked one, by the program's shell."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(what["cwd"])
        os.execve("/bin/sh", ["/bin/sh", "-c", what["command"]], {**what["env"], MARK: file})
    except OSError as error:
        os.write(2, f"cannot be started: {error}\n".encode())
    finally:
        os._exit(127)


class Stop:
    """The end of all descendants of this process: SIGTERM, `grace` seconds, SIGKILL."""

    def __init__(self, grace: float) -> None:
        self.signalled = False
        self._grace = grace
        self._deadline: float | None = None
        self._terminated: set[int] = set()

    def by_signal(self) -> None:
        self.signalled = True
        self.begin()

    def begin(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace

    def advance(self) -> float | None:
        """Send the signals that are due. Returns the seconds until the next call at the latest."""
        if self._deadline is None:
            return None
        remaining = self._deadline - time.monotonic()
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                if remaining <= 0:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in self._terminated:
                    self._terminated.add(pid)
                    # The group has got the signal already, and many programs exit at once on a second SIGTERM.
                    if not self.signalled or os.getpgid(pid) != os.getpgrp():
                        os.kill(pid, signal.SIGTERM)
        return max(0.05, min(0.5, remaining))


def descendants() -> set[int]:
    """Processes below this one."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(place.parent.name)] = int(place.read_text(errors="replace").rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return found


def end_left_overs(file: str, grace: float) -> None:
    """End the processes of an earlier launcher of this FILE that was killed: SIGTERM, grace, SIGKILL."""
    deadline = time.monotonic() + grace
    told: set[int] = set()
    while left := marked(f"{MARK}={file}"):
        killed = time.monotonic() >= deadline
        for pid in left if killed else left - told:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if killed else signal.SIGTERM)
        told |= left
        if time.monotonic() >= deadline + LEFT_OVER:
            return
        time.sleep(0.05)


def marked(mark: str) -> set[int]:
    """Processes with this NAME=VALUE in their environment, but not this one."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in place.read_bytes().split(b"\0"):
                found.add(int(place.parent.name))
    return found - {os.getpid()}


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
                output = os.read(pipe, LONGEST_LINE)
            except BlockingIOError:
                return
            self.open = bool(output)
            lines = (self._rest + output).splitlines(keepends=True)
            self._rest = b""
            if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) < LONGEST_LINE:
                self._rest = lines.pop()
            for line in lines:
                self.write(line)

    def close(self) -> None:
        if self._rest:
            self.write(self._rest + b"\n")
        self._file.close()

    def write(self, line: bytes) -> None:
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
    _import_headway()
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
    try:
        sys.exit(main(sys.argv[1]))
    except OSError:  # a full disk, no process or file left: the supervisor would try again at once, and for ever
        time.sleep(LONGEST_PAUSE)
        raise
