"""Read the log of an instance, across rotations. Its launcher renames it to .1, .2, ... and begins a new one."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from headway.system.launcher import LOG_FILES

__all__ = ["LogFile"]

BLOCK = 64 * 1024


class LogFile:
    """A log, read from its present end or its beginning. Bytes that are not UTF-8 become replacement characters."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._names = [path, *(Path(f"{path}.{number}") for number in range(1, LOG_FILES))]
        self._file: BinaryIO = path.open("rb")
        self._rest = b""
        if not from_start:
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()

    def last(self, count: int) -> list[str]:
        """At most `count` lines before the position in the file, and in the one before it."""
        lines = _last(self._file, self._file.tell(), count)
        if len(lines) < count and self._names[1].exists():
            with self._names[1].open("rb") as older:
                lines = _last(older, older.seek(0, os.SEEK_END), count - len(lines)) + lines
        return _decoded(lines)

    def new(self) -> list[str]:
        """Lines that were completed since the last call."""
        data = self._rest + self._file.read()
        while newer := self._newer():
            data += self._file.read()  # what was written before the rotation
            self._file.close()
            self._file = newer
            data += self._file.read()
        whole, newline, self._rest = data.rpartition(b"\n")
        return _decoded((whole + newline).splitlines())

    def _newer(self) -> BinaryIO | None:
        """The file that was begun after the open one; None when the open one is the newest."""
        mine = os.fstat(self._file.fileno()).st_ino
        for newer, name in pairwise(self._names):
            try:
                if name.stat().st_ino == mine:
                    return newer.open("rb")
            except FileNotFoundError:  # not rotated so often; or the new one is not open yet
                return None
        return None


def _last(file: BinaryIO, end: int, count: int) -> list[bytes]:
    """The last lines before `end`, which is the position afterwards too."""
    at, data = end, b""
    while at and data.count(b"\n") <= count:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        data = file.read(size) + data
    file.seek(end)
    return data.splitlines()[-count:] if count else []


def _decoded(lines: list[bytes]) -> list[str]:
    return [line.decode(errors="replace") for line in lines]
