"""The file system of a sandbox: toolchain and certificates read-only, workspace and home directory writable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.domain.workload import Workload
from headway.system.paths import home
from headway.system.runners.allowed_hosts import hosts_file
from headway.system.runners.user_network import NAME_SERVER

__all__ = ["Mounts", "file_system", "tool_directories"]

EXTRA = "HEADWAY_SANDBOX_PATHS"
# The rest of /etc is not shown: it has keys and passwords, which the worker's user may be allowed to read.
ETC = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "fonts",
    "hosts",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "pip.conf",
    "pki/tls",
    "pki/ca-trust",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
    "xdg/pip",
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
PREFIX_MARKS = ("lib", "versions", "pyvenv.cfg")  # beside bin/ in the directory of a Python, Node.js or pyenv
TEMPORARY = "/tmp"  # noqa: S108 - of the sandbox


@dataclass(frozen=True)
class Mounts:
    """Options of bwrap, and variables that tell the workload where its directories are."""

    options: tuple[str, ...]
    env: Mapping[str, str]


def file_system(
    workload: Workload, scratch: Path, sockets: Sequence[Path] = (), hosts: Mapping[str, Sequence[str]] | None = None
) -> Mounts:
    """The file system for a workload, with these Unix sockets of the machine.

    With `hosts`, it knows the addresses of these and no name server.
    `scratch` is an empty directory that lives as long as the workload.
    """
    own_home = workload.home or scratch / "home"
    own_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (scratch / "tmp").mkdir(mode=0o700)
    options = [
        *_system(),
        *(option for name in ETC for option in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
        *_written(scratch, own_home, hosts),
        # Root outside is the owner of the kernel's settings also without capabilities.
        *(
            "--proc",
            "/proc",
            "--ro-bind",
            "/proc/sys",
            "/proc/sys",
            "--dev",
            "/dev",
            "--bind",
            str(scratch / "tmp"),
            TEMPORARY,
            "--dir",
            "/run",
            "--symlink",
            TEMPORARY,
            "/var/tmp",  # noqa: S108 - of the sandbox
        ),
        *_read_only([*tool_directories(workload.env), *workload.readable]),
        *_writable([own_home, workload.workspace, *workload.writable, *sockets]),
        *("--remount-ro", "/"),  # what is not mounted is a tmpfs: the memory of the machine
        *("--chdir", str(workload.workspace)),
    ]
    return Mounts(tuple(options), {"HOME": str(own_home), "TMPDIR": TEMPORARY})


def _system() -> Iterator[str]:
    """The system's programs. On most distributions /bin and /lib are links into /usr."""
    for name in SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)


def _written(scratch: Path, own_home: Path, hosts: Mapping[str, Sequence[str]] | None) -> Iterator[str]:
    """Files of /etc that are the sandbox's own: its user, and its name server or the hosts that it may reach."""
    user, group = os.getuid() or 1000, os.getgid() or 1000
    contents = {
        "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\nheadway:x:{user}:{group}::{own_home}:/bin/sh\n",
        "group": f"root:x:0:\nheadway:x:{group}:\n",
        "resolv.conf": f"nameserver {NAME_SERVER}\n" if hosts is None else "",
    }
    if hosts is not None:
        contents["hosts"] = hosts_file(hosts)
    for name, content in contents.items():
        (scratch / name).write_text(content)
        yield from ("--ro-bind", str(scratch / name), f"/etc/{name}")


def tool_directories(env: Mapping[str, str]) -> list[Path]:
    """Directories outside of the system's that hold the programs on PATH, and files that certificate variables name.

    The operator adds others with HEADWAY_SANDBOX_PATHS (separated by colons). Directories that contain Headway's own
    files, or lie among them, are left out.
    """
    on_path = [Path(entry) for entry in env.get("PATH", "").split(os.pathsep) if entry.startswith("/")]
    named = [Path(value) for name, value in env.items() if "CERT" in name and value.startswith("/")]
    extra = [Path(entry) for entry in os.environ.get(EXTRA, "").split(os.pathsep) if entry]
    found = [Path(sys.prefix), Path(sys.base_prefix), *map(_prefix, on_path), *named, *extra]
    return [path for path in dict.fromkeys(found) if os.access(path, os.R_OK) and _is_shown(path)]


def _prefix(directory: Path) -> Path:
    """The installation that a directory of programs belongs to, or the directory itself."""
    parent = directory.parent
    is_prefix = directory.name in ("bin", "shims") and any(os.access(parent / mark, os.R_OK) for mark in PREFIX_MARKS)
    return parent if is_prefix and parent != Path.home() else directory


def _is_shown(path: Path) -> bool:
    state, real = home().resolve(), path.resolve()
    if state.is_relative_to(real) or real.is_relative_to(state):
        return False
    return not any(real.is_relative_to(system) for system in SYSTEM)


def _read_only(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        yield from ("--ro-bind", str(path), str(path))


def _writable(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        yield from ("--bind", str(path), str(path))
