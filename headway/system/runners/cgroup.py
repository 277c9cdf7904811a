"""Limits of memory and processes of a group of processes, where this machine lets Headway set them."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from headway.domain.workload import Limits

__all__ = ["limited"]

ROOT = Path("/sys/fs/cgroup")
EMPTY = 5.0  # seconds until killed processes have left
V1_FILES = {"memory.max": "memory.limit_in_bytes"}  # those with another name in version 2


@contextlib.contextmanager
def limited(limits: Limits) -> Iterator[Callable[[int], None]]:
    """Yield a function that puts a process, and its future children, under the limits.

    It does so where this user may make control groups, as root may. All these processes must have ended at the end.
    """
    values = {"pids.max": limits.processes}
    if limits.memory is not None:
        values["memory.max"] = limits.memory
    name = f"headway-{uuid.uuid4().hex[:12]}"
    groups = {setting: parent / name for setting in values if (parent := _parent(setting)) is not None}

    def add(pid: int) -> None:
        for group in set(groups.values()):
            (group / "cgroup.procs").write_text(str(pid))

    try:
        for setting, group in groups.items():
            group.mkdir(exist_ok=True)
            (group / (setting if _unified() else V1_FILES.get(setting, setting))).write_text(str(values[setting]))
        yield add
    finally:
        for group in set(groups.values()):
            _remove(group)


def _unified() -> bool:
    return (ROOT / "cgroup.controllers").exists()


def _parent(setting: str) -> Path | None:
    """The group in which a new one can have this setting; None where this user may not make one."""
    controller = setting.partition(".")[0]
    parent = ROOT if _unified() else ROOT / controller
    if not os.access(parent, os.W_OK):
        return None
    offered = not _unified() or controller in (parent / "cgroup.subtree_control").read_text().split()
    return parent if offered else None


def _remove(group: Path) -> None:
    deadline = time.monotonic() + EMPTY
    while group.exists():
        try:
            group.rmdir()
        except OSError:  # a killed process is still there
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
