"""The Runner contract: what every runner promises, and what an isolated one refuses to a hostile program."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from headway.domain.errors import CommandFailed
from headway.domain.ports import Runner
from headway.domain.workload import Finished, Limits, Workload
from headway.system.command_runner import clean_environment

__all__ = ["IsolationContract", "RunnerContract"]

DEADLINE = 60.0  # seconds


class RunnerContract:
    """Subclass it, and define the fixture `runner`."""

    @pytest.fixture
    def runner(self) -> Runner:
        raise NotImplementedError("define the fixture `runner`")

    @pytest.fixture
    def lines(self) -> list[str]:
        return []

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        return workspace

    @pytest.fixture
    def workload(self, workspace: Path, tmp_path: Path, lines: list[str]) -> Workload:
        return Workload("true", workspace, clean_environment(), DEADLINE, lines.append, "try", home=tmp_path / "home")

    async def test_output_and_exit_code(self, runner: Runner, workload: Workload, lines: list[str]) -> None:
        finished = await runner.run(_with(workload, "echo one; echo two >&2; exit 7"))
        assert (finished.exit_code, lines, finished.tail) == (7, ["one", "two"], ("one", "two"))

    async def test_a_signal_is_128_and_its_number(self, runner: Runner, workload: Workload) -> None:
        assert (await runner.run(_with(workload, "kill -9 $$"))).exit_code == 137

    async def test_it_runs_in_its_workspace_and_writes_there(self, runner: Runner, workload: Workload) -> None:
        (workload.workspace / "in").write_text("content")
        finished = await runner.run(_with(workload, 'cp in out && echo more >> out && test "$PWD" = "$(pwd)"'))
        assert finished.exit_code == 0
        assert (workload.workspace / "out").read_text() == "contentmore\n"

    async def test_it_has_the_variables_that_are_given_and_no_others(
        self, runner: Runner, workload: Workload, lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "of-the-worker")
        await runner.run(_with(workload, "env", env={**workload.env, "LEVEL": "high"}))
        assert "LEVEL=high" in lines
        assert not [line for line in lines if "of-the-worker" in line]

    async def test_secrets_are_masked(self, runner: Runner, workload: Workload, lines: list[str]) -> None:
        env = {**workload.env, "PASSWORD": "correct-horse"}
        await runner.run(_with(workload, 'echo "$PASSWORD"', env=env, secrets=("correct-horse",)))
        assert lines == ["********"]

    async def test_python_and_the_programs_on_path_are_there(
        self, runner: Runner, workload: Workload, lines: list[str]
    ) -> None:
        finished = await runner.run(_with(workload, f"git --version && {sys.executable} -c 'import ssl; print(6 * 7)'"))
        assert (finished.exit_code, lines[-1]) == (0, "42")

    async def test_a_timeout_ends_all_its_processes(self, runner: Runner, workload: Workload) -> None:
        mark = _mark()
        with pytest.raises(CommandFailed, match=r"try: timed out after 1 s"):
            await runner.run(_with(workload, f"sleep {mark} & sleep {mark}", timeout=1.0))
        assert await asyncio.to_thread(_gone, mark)

    async def test_cancelling_ends_all_its_processes(self, runner: Runner, workload: Workload) -> None:
        mark = _mark()
        running = asyncio.create_task(runner.run(_with(workload, f"touch started; sleep {mark}")))
        async with asyncio.timeout(DEADLINE):
            while "started" not in await asyncio.to_thread(os.listdir, workload.workspace):  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(_gone, mark)

    async def test_nothing_runs_on_after_its_end(self, runner: Runner, workload: Workload) -> None:
        mark = _mark()
        await runner.run(_with(workload, f"sleep {mark} & echo started"))
        assert await asyncio.to_thread(_gone, mark)

    async def test_two_at_the_same_time(self, runner: Runner, workload: Workload) -> None:
        both = [runner.run(_with(workload, f"sleep 0.2; exit {code}")) for code in (3, 4)]
        assert [finished.exit_code for finished in await asyncio.gather(*both)] == [3, 4]


class IsolationContract(RunnerContract):
    """For runners with `isolated`. Each program tries one thing and exits with 0 when it has succeeded."""

    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        """A file of the worker's user outside of the workspace, as the ledger and the keys are."""
        file = tmp_path / "headway-home" / "ledger.db"
        file.parent.mkdir()
        file.write_text("approvals")
        return file

    @pytest.fixture
    def listener(self) -> Iterator[int]:
        """Port of a server on this machine's loopback address, as Prefect's is."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    def test_it_is_isolated(self, runner: Runner) -> None:
        assert runner.isolated

    def test_files_outside_of_the_workspace(self, runner: Runner, workload: Workload, secret: Path) -> None:
        _refused(runner, workload, f"open({str(secret)!r}).read()")
        _refused(runner, workload, f"open({str(secret)!r}, 'a').write('approved')")
        _refused(runner, workload, f"os.listdir({str(secret.parent)!r})")
        assert secret.read_text() == "approvals"

    def test_links_out_of_the_workspace(self, runner: Runner, workload: Workload, secret: Path) -> None:
        _refused(runner, workload, f"os.symlink({str(secret)!r}, 'link'); open('link').read()")
        _refused(runner, workload, f"os.link({str(secret)!r}, 'hard'); open('hard').read()")

    @pytest.mark.parametrize(
        "path",
        [
            "~/.ssh",
            "~/.aws",
            "~/.docker",
            "~/.config",
            "/etc/shadow",
            "/root/.ssh",
            "/var/lib",
            "/var/run/docker.sock",
            "/home",
        ],
    )
    def test_credentials_of_the_worker(self, runner: Runner, workload: Workload, path: str) -> None:
        real = Path(path).expanduser()
        _refused(runner, workload, f"os.stat({str(real)!r})")

    def test_readable_files_are_read_only(self, runner: Runner, workload: Workload, secret: Path) -> None:
        given = _with(workload, readable=(secret.parent,))
        _succeeds(runner, given, f"assert open({str(secret)!r}).read() == 'approvals'")
        for attempt in (
            f"open({str(secret)!r}, 'a')",
            f"os.unlink({str(secret)!r})",
            f"os.chmod({str(secret)!r}, 0o777)",
        ):
            _refused(runner, given, attempt)

    def test_the_toolchain_is_read_only(self, runner: Runner, workload: Workload) -> None:
        _refused(runner, workload, "open('/usr/bin/headway-was-here', 'w')")
        _refused(runner, workload, f"open({sys.prefix + '/headway-was-here'!r}, 'w')")

    @pytest.mark.parametrize("place", ["/", "/etc", "/var", "/run", "/usr/lib"])
    def test_only_its_own_directories_are_writable(self, runner: Runner, workload: Workload, place: str) -> None:
        _refused(runner, workload, f"open({place!r} + '/headway-was-here', 'w')")
        _succeeds(runner, workload, "import tempfile, pathlib; tempfile.TemporaryFile(); pathlib.Path.home().touch()")

    def test_processes_of_others(self, runner: Runner, workload: Workload) -> None:
        victim = subprocess.Popen(["sleep", "3600"], env={"TOKEN": "of-another-app"})
        try:
            _refused(
                runner,
                workload,
                "names = [open(f'/proc/{pid}/comm').read() for pid in os.listdir('/proc') if pid.isdigit()]\n"
                "assert 'sleep\\n' in names",
            )
            _refused(runner, workload, f"os.kill({victim.pid}, 9)")
            _refused(
                runner,
                workload,
                "for pid in os.listdir('/proc'):\n"
                "    if pid.isdigit() and b'of-another-app' in open(f'/proc/{pid}/environ', 'rb').read(): break\n"
                "else: raise SystemExit(1)",
            )
            assert victim.poll() is None
        finally:
            victim.kill()
            victim.wait()

    def test_tracing_of_others(self, runner: Runner, workload: Workload) -> None:
        _refused(runner, workload, f"import ctypes; assert ctypes.CDLL(None).ptrace(16, {os.getpid()}, 0, 0) == 0")

    def test_loopback_of_the_machine(self, runner: Runner, workload: Workload, listener: int) -> None:
        for host in ("127.0.0.1", "localhost", "10.0.2.2", "0.0.0.0"):  # noqa: S104 - an address to try
            _refused(runner, workload, f"import socket; socket.create_connection(({host!r}, {listener}), 3)")

    def test_abstract_unix_sockets(self, runner: Runner, workload: Workload) -> None:
        name = f"\0headway-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            server.listen()
            _refused(runner, workload, f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})")

    def test_addresses_of_the_machine(self, runner: Runner, workload: Workload) -> None:
        own = [
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family == socket.AF_INET and not address.address.startswith("127.")
        ]
        with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - what is tried
            port = server.getsockname()[1]
            for host in own[:2]:
                _refused(runner, workload, f"import socket; socket.create_connection(({host!r}, {port}), 3)")

    def test_cloud_metadata(self, runner: Runner, workload: Workload) -> None:
        attempt = "import socket; socket.create_connection(('169.254.169.254', 80), 3)"
        _refused(runner, workload, attempt)

    def test_no_network_at_all(self, runner: Runner, workload: Workload) -> None:
        attempt = "import socket; print(socket.if_nameindex()); assert len(socket.if_nameindex()) > 1"
        _refused(runner, _with(workload, network=False), attempt)

    def test_capabilities(self, runner: Runner, workload: Workload) -> None:
        held = "[line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1]"
        _refused(runner, workload, f"assert int({held}, 16)")
        _refused(runner, workload, "assert os.getuid() == 0")
        _refused(runner, workload, "import socket; socket.sethostname('taken')")

    def test_setuid_programs_give_nothing(self, runner: Runner, workload: Workload) -> None:
        _refused(runner, workload, "import ctypes; assert ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 0")
        _refused(runner, workload, "os.setuid(0)")

    def test_mounts(self, runner: Runner, workload: Workload) -> None:
        _refused(
            runner, workload, "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/usr', b'tmpfs', 0, None) == 0"
        )

    def test_devices(self, runner: Runner, workload: Workload) -> None:
        _refused(runner, workload, "os.mknod('disk', 0o660 | 0o060000, os.makedev(8, 0))")
        _refused(runner, workload, "open('/dev/mem', 'rb')")
        _refused(runner, workload, "assert [n for n in os.listdir('/dev') if n.startswith(('sd', 'vd', 'nvme'))]")

    def test_kernel_settings(self, runner: Runner, workload: Workload) -> None:
        _refused(runner, workload, "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')")
        _refused(runner, workload, "open('/proc/sysrq-trigger', 'w').write('h')")
        _refused(runner, workload, "open('/sys/fs/cgroup/cgroup.procs', 'a').write('1')")

    def test_kernel_keyrings(self, runner: Runner, workload: Workload) -> None:
        """KEYCTL_GET_KEYRING_ID of the session keyring, which namespaces do not separate."""
        number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
        _refused(runner, workload, f"import ctypes; assert ctypes.CDLL(None).syscall({number}, 0, -3, 0) > 0")

    def test_shared_memory_and_queues(self, runner: Runner, workload: Workload) -> None:
        shared = subprocess.run(["ipcmk", "-M", "4096"], capture_output=True, text=True, check=True)
        identifier = shared.stdout.split()[-1]
        try:
            _refused(runner, workload, f"assert {identifier!r} in os.popen('ipcs -m').read().split()")
        finally:
            subprocess.run(["ipcrm", "-m", identifier], check=True)

    def test_the_temporary_folder_of_others(self, runner: Runner, workload: Workload, tmp_path: Path) -> None:
        squatted = Path(f"/tmp/headway-test-{os.getpid()}")  # noqa: S108 - what is tried
        _succeeds(runner, workload, f"open({str(squatted)!r}, 'w').write('squatted')")
        assert not squatted.exists()
        _refused(runner, workload, f"os.stat({str(squatted)!r})")  # a new one each time

    def test_a_daemon_that_leaves_its_session(self, runner: Runner, workload: Workload) -> None:
        mark = _mark()
        _succeeds(
            runner,
            workload,
            "import subprocess\n"
            f"subprocess.Popen(['setsid', '-f', 'sleep', '{mark}'], close_fds=True)\n"
            "import time; time.sleep(0.3)",
        )
        assert _gone(mark)

    def test_a_fork_bomb(self, runner: Runner, workload: Workload) -> None:
        limited = _with(workload, limits=Limits(processes=64))
        _refused(
            runner,
            limited,
            "import time\nfor _ in range(300):\n    if not os.fork():\n        time.sleep(20); os._exit(0)",
        )

    def test_more_memory_than_its_limit(self, runner: Runner, workload: Workload) -> None:
        limited = _with(workload, limits=Limits(memory=128 * 2**20))
        _refused(runner, limited, "data = bytearray(1024 * 2**20)")

    def test_a_file_that_fills_the_disk(self, runner: Runner, workload: Workload) -> None:
        limited = _with(workload, limits=Limits(file_size=2**20))
        _refused(runner, limited, "open('big', 'wb').write(bytes(2**21))")

    def test_variables_of_the_worker(self, runner: Runner, workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-worker")
        _refused(
            runner,
            workload,
            "assert 'AWS_SECRET_ACCESS_KEY' in os.environ or b'of-the-worker' in open('/proc/1/environ', 'rb').read()",
        )


def _mark() -> str:
    """Seconds for `sleep`, which no other process sleeps for."""
    return f"3600.{os.getpid()}{time.monotonic_ns()}"


def _with(workload: Workload, command: str = "true", **changes: object) -> Workload:
    return replace(workload, command=command, **changes)  # type: ignore[arg-type]


def _attempt(runner: Runner, workload: Workload, program: str) -> Finished:
    script = workload.workspace / f"attempt-{time.monotonic_ns()}.py"
    script.write_text(f"import os, sys\n{textwrap.dedent(program)}\n")
    return asyncio.run(runner.run(replace(workload, command=f"exec {sys.executable} -I {script.name}")))


def _refused(runner: Runner, workload: Workload, program: str) -> None:
    finished = _attempt(runner, workload, program)
    assert finished.exit_code != 0, f"it succeeded: {program}"


def _succeeds(runner: Runner, workload: Workload, program: str) -> None:
    finished = _attempt(runner, workload, program)
    assert finished.exit_code == 0, finished.tail


def _gone(mark: str) -> bool:
    """Whether no process with this text in its arguments is left, after a moment at most."""
    for _ in range(200):
        if not [one for one in psutil.process_iter(["cmdline"]) if mark in " ".join(one.info["cmdline"] or ())]:
            return True
        time.sleep(0.05)
    return False
