"""Output of the app's commands: all of it in a file, and as much of it in the run's log as its server can take.

Every line of a run's log is a row in the database of the Prefect server. A test suite that prints 60,000 lines kept
that server busy for minutes, and with it the releases of every other app.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["OutputLog", "output_log"]

BURST = 300_000  # characters that are shown at once, about 1,000 lines
RATE = 3_000.0  # characters a second after that, about 10 lines
ROW = 200  # characters that a line costs beside its own
LONGEST_SHOWN = 4_000  # characters of a line
LAST_SHOWN = 20  # lines at the end that are shown whatever came before
FILE_LIMIT = 256_000_000  # bytes


@contextmanager
def output_log(file: Path, say: Callable[[str], None]) -> Iterator[OutputLog]:
    """Write the lines of one command to `file`, and pass a limited number of them to `say`."""
    log = OutputLog(file, say)
    try:
        yield log
    finally:
        log.close()


class OutputLog:
    """Called with each line. `file` gets all of them; `say` gets about 1,000, then 10 a second, and the last 20.

    Gaps are announced with the number of their lines. A full disk, or a file of 256 MB, leaves lines out of the file
    but does not stop the command. `clock` is in seconds.
    """

    def __init__(self, file: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = file
        self._file = file.open("ab", buffering=0)
        self._say = say
        self._clock = clock
        self._budget = float(BURST)
        self._counted_at = clock()
        self._omitted = 0
        self._last: deque[str] = deque(maxlen=LAST_SHOWN)
        self._unwritten = 0
        self._unwritten_because = f"it has {FILE_LIMIT // 1_000_000} MB"

    def __call__(self, line: str) -> None:
        self._write(line)
        now = self._clock()
        self._budget = min(BURST, self._budget + (now - self._counted_at) * RATE)
        self._counted_at = now
        # After a gap, a tenth of the burst: a single line between two gaps would be useless.
        if self._budget < (BURST / 10 if self._omitted else 0):
            self._omitted += 1
            self._last.append(line)
            return
        self._end_gap()
        self._show(line)

    def close(self) -> None:
        self._end_gap()
        if self._unwritten:
            self._say(f"[{self._unwritten:,} lines are not in {self._path}: {self._unwritten_because}]")
        self._file.close()

    def _end_gap(self) -> None:
        """Show the last lines of a gap, after what is missing of it."""
        if missing := self._omitted - len(self._last):
            where = f"the whole output is in {self._path} on {socket.gethostname()}"
            self._say(f"[{missing:,} lines left out here; {where}]")
        for line in self._last:
            self._show(line)
        self._omitted = 0
        self._last.clear()

    def _show(self, line: str) -> None:
        more = len(line) - LONGEST_SHOWN
        shown = line if more <= 0 else f"{line[:LONGEST_SHOWN]} [{more:,} characters left out here]"
        self._budget -= len(shown) + ROW
        self._say(shown)

    def _write(self, line: str) -> None:
        if self._file.tell() >= FILE_LIMIT:
            self._unwritten += 1
            return
        try:
            self._file.write(line.encode(errors="replace") + b"\n")
        except OSError as error:
            self._unwritten += 1
            self._unwritten_because = error.strerror or type(error).__name__
