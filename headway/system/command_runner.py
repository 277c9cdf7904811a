"""Run a shell command of the app: stream its output line by line, mask secrets, and end all its processes."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import fcntl
import io
import os
import re
import shlex
import signal
import struct
import subprocess
import termios
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from headway.domain.errors import CommandFailed
from headway.domain.source import Source
from headway.domain.workload import Finished
from headway.system import launcher
from headway.system.redaction import LONGEST_QUOTE, Masker

__all__ = ["clean_environment", "run"]

MARK = "HEADWAY_COMMAND"  # variable of each command, by which its processes are known
LONGEST_LINE = 64 * 1024
TAIL = 20
READ_SIZE = 64 * 1024

# Terminal control sequences. PostgreSQL also rejects NUL bytes.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]"
)

_PASSED_ON = re.compile(
    r"""PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|XDG_\w+|JAVA_HOME
    |DOCKER_HOST|DOCKER_CERT_PATH|DOCKER_TLS_VERIFY|DOCKER_CONTEXT|DOCKER_CONFIG
    |SSL_CERT_FILE|SSL_CERT_DIR|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|PIP_CERT
    |(?i:https?_proxy|all_proxy|no_proxy)
    |PIP_(?:EXTRA_)?INDEX_URL|PIP_FIND_LINKS|PIP_AUDIT_(?:VULNERABILITY_SERVICE|OSV_URL)
    |UV_(?:DEFAULT_)?INDEX(?:_URL)?|GOPROXY|(?i:npm_config_registry)""",
    re.VERBOSE,
)
_FOR_US = re.compile("^(DOCKER|XDG)_")  # access to the engine, and paths below our own home directory
_LOGIN = re.compile(r"://[^/\s]*@")
_NEVER_PASSED_ON = re.compile(r"^(PREFECT|HEADWAY)_|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


def clean_environment(source: Source | None = None) -> dict[str, str]:
    """Environment of a command: user and locale, certificates, proxies and package mirrors of our own environment.

    This is an allow-list, so that an unexpected credential in our environment is not passed on. `CI=true` is added, and
    `PYTHONUNBUFFERED=1`: without it a Python program prints its lines only at its end. A command of an untrusted
    `source` gets an empty home directory, no access to the Docker engine, and no URL with a password.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if _PASSED_ON.fullmatch(name) and not _NEVER_PASSED_ON.search(name)
    }
    if source and not source.trusted:
        home = Path(f"{source.workspace}.home")
        home.mkdir(mode=0o700, exist_ok=True)
        ours = {name: value for name, value in ours.items() if not (_FOR_US.search(name) or _LOGIN.search(value))}
        ours["HOME"] = str(home)
    return {**ours, "CI": "true", "PYTHONUNBUFFERED": "1"}


async def run(
    command: str | Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,  # noqa: ASYNC109 - a timeout ends the process group, not only the wait
    on_line: Callable[[str], None],
    secrets: Iterable[str] = (),
    grace: float = 5.0,
    name: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run a command for at most `timeout` seconds, in its own process group: a string with /bin/sh, or a program.

    `on_line` receives every line of standard output and standard error in the order written, without colours and with
    `secrets` masked. Lines longer than 64 KiB are split. The command ends when its shell ends. Remaining background
    processes are then ended, as they are on a timeout, on cancellation, and when `on_line` raises: SIGTERM to the
    group, `grace` seconds, SIGKILL.

    `name` is used in errors (default: the command). `pass_fds` stay open in the command. An exit code other than 0 is
    returned, not raised. Raises CommandFailed when the command cannot be started or times out.
    """
    masker = Masker(secrets)
    program = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    where = name or _shortened(masker(command if isinstance(command, str) else shlex.join(command)))
    lines = _Lines(masker, on_line)
    started = time.monotonic()
    token = uuid.uuid4().hex
    with _started(program, cwd, {**env, MARK: token}, where, pass_fds) as (process, output):
        running = _Running(process, output, lines, f"{MARK}={token}")
        try:
            async with asyncio.timeout(timeout):
                await running.ended
        except TimeoutError as error:
            raise CommandFailed(
                f"{where}: timed out after {timeout:g} s; its processes were ended",
                "give it a longer timeout if it only needs more time; its last lines say what it was doing",
            ) from error
        finally:
            await running.end(grace)
    lines.finish()
    exit_code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Finished(exit_code, time.monotonic() - started, tuple(lines.tail))


def _shortened(command: str) -> str:
    first, *more = command.strip().splitlines() or [""]
    return first[:60] + ("..." if more or len(first) > 60 else "")


@contextlib.contextmanager
def _started(
    program: list[str], cwd: Path, env: Mapping[str, str], where: str, pass_fds: Sequence[int]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start the command; yields the process and the reading end of its output pipe."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        try:
            process = subprocess.Popen(
                program,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CommandFailed(
                f"{where}: cannot be started in {cwd}: {reason}", "does its directory exist?"
            ) from error
        finally:
            os.close(writing)
        try:
            yield process, reading
        finally:
            if process.returncode is None:  # an exception before `_Running` took over
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        os.close(reading)


class _Running:
    """Follow a process until its shell exits. asyncio's subprocess waits for every process that holds the pipe."""

    def __init__(self, process: subprocess.Popen[bytes], output: int, lines: _Lines, mark: str) -> None:
        self._mark = mark
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._output = output
        self._lines = lines
        self._deaf = False
        self._pidfd = os.pidfd_open(process.pid)
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(output, self._guarded, self._readable)
        self._loop.add_reader(self._pidfd, self._guarded, self._exited)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Pass an exception of `on_line` to `ended`: an event loop only logs the exceptions of callbacks."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - raised again where `ended` is awaited
            self._loop.remove_reader(self._output)
            self._deaf = True
            if not self.ended.done():
                self.ended.set_exception(error)

    def _readable(self) -> None:
        data = os.read(self._output, READ_SIZE)
        if data:
            self._lines.feed(data)
        else:
            self._loop.remove_reader(self._output)

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._rest()
        if not self.ended.done():
            self.ended.set_result(None)

    def _rest(self) -> None:
        """Read what is in the pipe now, and no more: a background process may never stop writing."""
        count = bytearray(4)
        fcntl.ioctl(self._output, termios.FIONREAD, count)
        (waiting,) = struct.unpack("i", count)
        while waiting > 0 and (data := os.read(self._output, min(waiting, READ_SIZE))):
            waiting -= len(data)
            self._lines.feed(data)

    async def end(self, grace: float) -> None:
        """End the process group, then reap the shell: until it is reaped, its process id cannot be reused.

        Processes that have left the group, with a session of their own, are known by the mark in their environment.
        """
        try:
            if hidden := launcher.marked(self._mark) - set(self._members()):
                _signal_all(hidden, signal.SIGTERM)
            if hidden or self._members():
                os.killpg(self._process.pid, signal.SIGTERM)
                await self._gone(hidden, grace)
        finally:
            # Runs also when cancelled a second time, so that no process survives.
            os.killpg(self._process.pid, signal.SIGKILL)
            _signal_all(launcher.marked(self._mark), signal.SIGKILL)
            self._process.wait()
            self._loop.remove_reader(self._output)
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        if not self._deaf:
            self._rest()

    async def _gone(self, hidden: set[int], grace: float) -> None:
        deadline = self._loop.time() + grace
        while (self._members() or not all(map(_dead, hidden))) and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _members(self) -> list[int]:
        """Running processes of the group. Signal 0 would also count zombies."""
        return [pid for pid in psutil.pids() if _group(pid) == self._process.pid and not _dead(pid)]


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or became another user's
            os.kill(pid, number)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


class _Lines:
    """Convert bytes to clean lines. A carriage return also ends a line, because progress bars use it."""

    def __init__(self, masker: Masker, on_line: Callable[[str], None]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._masker = masker
        self._on_line = on_line
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        self._pending = ""

    def feed(self, data: bytes) -> None:
        *whole, self._pending = (self._pending + self._decoder.decode(data)).replace("\r", "\n").split("\n")
        for line in whole:
            self._emit(line)
        if len(self._pending) > LONGEST_LINE + self._masker.longest:
            self._pending = self._emit_pieces(self._pending)

    def finish(self) -> None:
        rest = self._pending + self._decoder.decode(b"", final=True).rstrip("\r\n")
        self._pending = ""
        if rest:
            self._emit(rest)

    def _emit(self, line: str) -> None:
        self._say(self._emit_pieces(line))

    def _emit_pieces(self, text: str) -> str:
        """Emit all pieces of a long line but the last, and return the last one."""
        text = _CONTROL.sub("", text)
        while len(text) > LONGEST_LINE + self._masker.longest:
            at = self._masker.cut(text, LONGEST_LINE)
            self._say(text[:at])
            text = text[at:]
        return text

    def _say(self, line: str) -> None:
        clean = self._masker(line)
        self.tail.append(clean if len(clean) <= LONGEST_QUOTE else clean[: LONGEST_QUOTE - 1] + "…")
        self._on_line(clean)
