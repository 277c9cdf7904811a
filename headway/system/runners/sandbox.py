"""Runner that isolates a workload in namespaces of its own, with bubblewrap and slirp4netns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import ClassVar

from headway.domain.errors import CommandFailed
from headway.domain.ports import Runner
from headway.domain.refusal import Refusal
from headway.domain.workload import Finished, Limits, Workload
from headway.system import command_runner, directories
from headway.system.runners import user_network
from headway.system.runners.allowed_hosts import addresses_of
from headway.system.runners.cgroup import limited
from headway.system.runners.file_system import Mounts, file_system
from headway.system.runners.seccomp import system_call_filter
from headway.system.runners.services import Services, opened_services
from headway.system.runners.user_network import Network

__all__ = ["SandboxRunner"]

PROGRAMS = {
    "bwrap": "bubblewrap",
    "slirp4netns": "slirp4netns",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "prlimit": "util-linux",
}
SELF_TEST = 30.0  # seconds
GRACE = 0.5  # seconds; SIGTERM ends bwrap, and the kernel then kills the rest, unless it has not started yet
NAMESPACES = (
    "--unshare-user",
    "--unshare-ipc",
    "--unshare-pid",
    "--unshare-net",
    "--unshare-uts",
    "--unshare-cgroup-try",
)


class SandboxRunner(Runner):
    """Runs workloads in new user, process, IPC, mount and network namespaces, without capabilities.

    A workload sees its workspace, its home directory, the toolchain and certificates, and no other files. It reaches
    other hosts through slirp4netns, but no link-local addresses, where clouds serve credentials, and nothing of this
    machine but the services that the operator has opened.
    At its end, a timeout or a cancellation, the kernel kills all its processes at once.
    """

    name: ClassVar[str] = "sandbox"
    isolated: ClassVar[bool] = True

    def missing(self) -> Refusal | None:
        return _missing()

    async def run(self, workload: Workload) -> Finished:
        if refusal := self.missing():
            raise CommandFailed(f"{workload.name}: {refusal.what}", refusal.hint)
        scratch = Path(tempfile.mkdtemp(prefix="headway-sandbox-"))
        try:
            services = opened_services() if workload.network and workload.services else Services()
            hosts = None if workload.hosts is None else await addresses_of(workload.hosts, workload.name)
            addresses = None if hosts is None else tuple(chain.from_iterable(hosts.values()))
            files = file_system(workload, scratch, services.sockets, hosts)
            return await _run(workload, files, Network(services.ports, addresses))
        finally:
            await asyncio.to_thread(directories.remove, scratch)


async def _run(workload: Workload, files: Mounts, network: Network) -> Finished:
    with contextlib.ExitStack() as stack:
        info_read, info_write = _pipe(stack)
        block_read, block_write = _pipe(stack)
        rules = stack.enter_context(tempfile.TemporaryFile())
        rules.write(system_call_filter())
        rules.seek(0)
        limit = stack.enter_context(limited(workload.limits))
        descriptors = {"--info-fd": info_write, "--block-fd": block_read, "--seccomp": rules.fileno()}
        options = [part for option, descriptor in descriptors.items() for part in (option, str(descriptor))]
        try:
            async with asyncio.TaskGroup() as group:
                supply = group.create_task(_supply(workload, network, limit, info_read, block_write))
                finished = await command_runner.run(
                    [*_limited(workload.limits), *_bwrap(files), *options, "--", "/bin/sh", "-c", workload.command],
                    cwd=workload.workspace,
                    env={**workload.env, **files.env},
                    timeout=workload.timeout,
                    on_line=workload.on_line,
                    secrets=workload.secrets,
                    grace=GRACE,
                    name=workload.name,
                    pass_fds=list(descriptors.values()),
                )
                supply.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return finished


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def _limited(limits: Limits) -> list[str]:
    return ["prlimit", f"--nproc={limits.processes}", f"--fsize={limits.file_size}", "--core=0"]


def _bwrap(files: Mounts) -> list[str]:
    # bubblewrap maps exactly one user. Some programs refuse to run as root, so root is mapped to another one.
    identity = ("--uid", str(os.getuid() or 1000), "--gid", str(os.getgid() or 1000))
    return ["bwrap", *NAMESPACES, *identity, "--cap-drop", "ALL", "--die-with-parent", *files.options]


async def _supply(workload: Workload, network: Network, limit: Callable[[int], None], info: int, block: int) -> None:
    """Wait for the sandbox, limit and connect it, start the command, and keep it connected until cancelled."""
    try:
        pid = await _first_process(info)
        limit(pid)
        connected = user_network.connected(pid, workload.name, network)
        async with connected if workload.network else contextlib.nullcontext():
            os.write(block, b"1")
            await asyncio.get_running_loop().create_future()
    except OSError as error:  # TimeoutError is one
        raise CommandFailed(
            f"{workload.name}: the sandbox did not start: {type(error).__name__}: {error}",
            "its output says why; HEADWAY_RUNNER=host runs commands without one",
        ) from error


async def _first_process(info: int) -> int:
    """Process id, outside, of the first process of the sandbox."""
    text = b""
    while not text.rstrip().endswith(b"}"):
        await user_network.readable(info)
        text += os.read(info, 4096)
    return int(json.loads(text)["child-pid"])


@functools.cache
def _missing() -> Refusal | None:
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return Refusal(f"the sandbox needs `{program}`, which is not installed", f"apt-get install {package}")
    with ThreadPoolExecutor(1) as thread:  # this one may have a running event loop
        return thread.submit(asyncio.run, _self_test()).result()


async def _self_test() -> Refusal | None:
    """Run `true` as a workload. Raises CommandFailed when the machine is too busy to say whether that works."""
    with tempfile.TemporaryDirectory(prefix="headway-sandbox-test-") as place:
        (workspace := Path(place) / "workspace").mkdir()
        (scratch := Path(place) / "scratch").mkdir()
        test = Workload(
            "true", workspace, command_runner.clean_environment(), SELF_TEST, lambda _line: None, "test of the sandbox"
        )
        try:
            finished = await _run(test, file_system(test, scratch), Network())
        except CommandFailed as failed:
            if isinstance(failed.__cause__, TimeoutError):
                raise
            reason = failed.what
        else:
            if finished.exit_code == 0:
                return None
            reason = "; ".join(finished.tail) or f"exit code {finished.exit_code}"
    return Refusal(
        f"the sandbox does not work on this machine: {reason[:200]}",
        "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns), and access to /dev/net/tun",
    )
