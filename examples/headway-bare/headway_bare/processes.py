"""Detached processes, found again by markers in their environment."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import psutil
import contextlib

__all__ = ["find", "start", "stop"]

MARK = "HEADWAY_BARE"


def start(mark: str, command: str, *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
    """Run a shell command in its own session. It outlives this process; its output is appended to `log`."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", "/bin/sh", "-c", command],
            cwd=cwd,
            env={**env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def find(marks: Collection[str]) -> dict[str, psutil.Process]:
    """The running processes with these marks. Children of a marked process are not listed."""
    marked = {process.pid: (mark, process) for mark, process in _marked() if mark in marks}
    return {mark: process for mark, process in marked.values() if _parent(process) not in marked}


def stop(marks: Collection[str], grace: float) -> None:
    """Stop these processes and their children: SIGTERM, SIGKILL after `grace` seconds."""
    ending = [process for mark, process in _marked() if mark in marks]
    for process in ending:
        _signal(process, psutil.Process.terminate)
    psutil.wait_procs(ending, timeout=grace)
    for mark, process in _marked():
        if mark in marks:
            _signal(process, psutil.Process.kill)


def _marked() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except psutil.Error:  # it has exited, or belongs to another user
            continue
        if mark:
            yield mark, process


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _signal(process: psutil.Process, send: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send(process)
