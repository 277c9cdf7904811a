"""A command of an app that Headway runs on a worker, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Finished", "Limits", "Workload"]


@dataclass(frozen=True)
class Limits:
    """What a workload may use at most. A runner without isolation does not enforce them."""

    memory: int | None = None
    """Bytes, of all its processes together. None: what the machine has."""
    processes: int = 4096
    """Processes and threads."""
    file_size: int = 16 * 2**30
    """Bytes of one file."""


@dataclass(frozen=True)
class Workload:
    """A shell command of an app, run by a `Runner`: a check, a build command or a scanner."""

    command: str
    workspace: Path
    """Its current directory. It reads and writes the files below."""
    env: Mapping[str, str]
    """All its environment variables: none are inherited."""
    timeout: float
    """Seconds."""
    on_line: Callable[[str], None]
    """Called with each line of its output, secrets masked."""
    name: str
    """Used in errors and logs."""
    home: Path | None = None
    """Its home directory, writable, which keeps caches of package managers between runs. None: an empty one."""
    readable: tuple[Path, ...] = ()
    """Further files and directories that it reads."""
    writable: tuple[Path, ...] = ()
    """Further files and directories that it reads and writes."""
    secrets: tuple[str, ...] = ()
    """Values to mask in its output."""
    network: bool = True
    """Whether it reaches other hosts. In isolation it reaches no address of this machine but its `services`."""
    hosts: tuple[str, ...] | None = None
    """Names of the only hosts that it reaches, for a runner with `isolated`. None: all."""
    services: bool = False
    """Whether it also reaches the services of this machine that the operator has opened to workloads."""
    limits: Limits = field(default=Limits())


class Finished(NamedTuple):
    """Result of a command that was not interrupted."""

    exit_code: int  # as in a shell: 128 + signal number when a signal ended it
    seconds: float
    tail: tuple[str, ...]  # its last 20 lines, masked, at most 300 characters of each
