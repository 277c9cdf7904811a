"""Limits of this machine, checked before a change that would exceed them in the middle."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import socket
from pathlib import Path

import psutil

from headway.domain.refusal import Refusal

__all__ = ["inotify_shortage", "shortage"]

DISK = 100_000_000  # bytes: logs of an instance take 40 MB
INODES = 1_000
MEMORY = 64 * 2**20  # bytes
FILES = 1_000  # open ones, of the whole machine
PROCESSES = 50  # and threads: an instance has a launcher, a shell and the app, a new Envoy about ten


def shortage(directory: Path, host: str) -> Refusal | None:
    """The first limit that starting a few processes would exceed: files in `directory`, listening on `host`."""
    checks = (_disk(directory), _memory(), _files(), _processes(), _address(host))
    return next((one for one in checks if one), None)


def inotify_shortage() -> Refusal | None:
    """Whether this user has used up its inotify instances."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor >= 0:
        os.close(descriptor)
        return None
    if ctypes.get_errno() != errno.EMFILE:
        return Refusal(f"inotify does not work here: {os.strerror(ctypes.get_errno())}", "is /proc mounted?")
    limit = Path("/proc/sys/fs/inotify/max_user_instances").read_text().strip()
    return Refusal(
        f"this user has no inotify instance left (fs.inotify.max_user_instances is {limit})",
        "end the programs that use them, or raise it: sysctl fs.inotify.max_user_instances=1024",
    )


def _disk(directory: Path) -> Refusal | None:
    existing = next(one for one in (directory, *directory.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if free < DISK:
        return Refusal(
            f"the disk of {existing} has {free // 1_000_000} MB left of the {DISK // 1_000_000} MB that a launch needs",
            "make room on it",
        )
    files = os.statvfs(existing)
    if files.f_files and files.f_favail < INODES:
        return Refusal(f"the disk of {existing} has {files.f_favail} inodes left", "remove files from it")
    return None


def _memory() -> Refusal | None:
    available = psutil.virtual_memory().available
    if available >= MEMORY:
        return None
    return Refusal(f"this machine has {available >> 20} MiB of memory left", "end something, or add memory")


def _files() -> Refusal | None:
    used, _, most = map(int, Path("/proc/sys/fs/file-nr").read_text().split())
    if most - used >= FILES:
        return None
    return Refusal(f"{used} of {most} files of this machine are open (fs.file-max)", "raise it: sysctl fs.file-max")


def _processes() -> Refusal | None:
    """Root has no limit of its own."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if not os.getuid() or limit == resource.RLIM_INFINITY:
        return None
    mine = [one for one in psutil.process_iter(["uids", "num_threads"]) if one.info["uids"]]
    used = sum(one.info["num_threads"] or 1 for one in mine if one.info["uids"].real == os.getuid())
    if limit - used >= PROCESSES:
        return None
    return Refusal(f"this user has {used} of {limit} processes and threads", "raise the limit: ulimit -u")


def _address(host: str) -> Refusal | None:
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        return Refusal(f"{host} is no address that this machine can listen on: {reason}", "correct the target's host")
    return None
