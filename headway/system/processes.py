"""Identity of a process, which another process of the same machine can check."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from headway.domain.base import Frozen

__all__ = ["ProcessIdentity", "this_process"]

CLOCK = 10.0  # seconds that the clock of a machine may be set by while a process runs


class ProcessIdentity(Frozen):
    """A process: host name, boot of the machine and its PID namespace, PID, and when it was created (Unix time)."""

    host: str
    boot: str
    pid: int
    created: float

    @property
    def is_here(self) -> bool:
        """Whether `runs` can tell: it is of this boot of this host, and of the same PID namespace."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    @property
    def runs(self) -> bool:
        """Whether the process exists now. Only for one that `is_here`."""
        try:
            process = psutil.Process(self.pid)
            created, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return False
        return abs(created - self.created) < CLOCK and status != psutil.STATUS_ZOMBIE


def this_process() -> ProcessIdentity:
    created = psutil.Process().create_time()
    return ProcessIdentity(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), created=created)


def _boot() -> str:
    """Differs after a restart of the machine, and between containers, which have PIDs of their own."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
