from __future__ import annotations

import asyncio
import os
import shlex
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from headway.domain.errors import CommandFailed
from headway.domain.source import Source
from headway.domain.workload import Finished
from headway.system.command_runner import clean_environment, run
from headway.system.redaction import MASK


@pytest.fixture
def lines() -> list[str]:
    return []


def python(tmp_path: Path, source: str) -> str:
    """A shell command that runs this program."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(source))
    return f"{shlex.quote(sys.executable)} {script}"


async def go(command: str, tmp_path: Path, lines: list[str], **options: object) -> Finished:
    options = {"timeout": 60.0, "env": clean_environment(), "grace": 2.0, **options}
    return await run(command, cwd=tmp_path, on_line=lines.append, **options)  # type: ignore[arg-type]


async def alive(pid_file: Path) -> bool:
    """Is the process still there? Being reaped by init may take it a moment."""
    pid = int(pid_file.read_text())
    for _ in range(1000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        await asyncio.sleep(0.02)
    return True


async def appears(path: Path) -> None:
    async with asyncio.timeout(60):
        while not (path.exists() and path.read_text()):
            await asyncio.sleep(0.01)


async def test_output_is_delivered_by_line_and_the_exit_code_returned(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("echo one; echo two >&2; printf three; exit 7", tmp_path, lines)
    assert lines == ["one", "two", "three"]
    assert finished.exit_code == 7
    assert finished.tail == ("one", "two", "three")


async def test_line_is_delivered_while_the_command_runs(tmp_path: Path, lines: list[str]) -> None:
    go_on = tmp_path / "go-on"

    def on_line(line: str) -> None:
        lines.append(line)
        go_on.touch()

    # It waits for a file that only the arrival of its first line creates.
    waiting = "echo first; while [ ! -e go-on ]; do sleep 0.01; done; echo second"
    await run(waiting, cwd=tmp_path, env=clean_environment(), timeout=60, on_line=on_line)
    assert lines == ["first", "second"]


async def test_standard_input_is_empty_and_the_environment_is_what_was_given(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEN", "no")
    await go('cat; echo "$A-$SEEN"; pwd', tmp_path, lines, env={"A": "b", "PATH": os.environ["PATH"]})
    assert lines == ["b-", str(tmp_path)]


async def test_a_signal_is_an_exit_code_as_in_a_shell(tmp_path: Path, lines: list[str]) -> None:
    assert (await go("kill -9 $$", tmp_path, lines)).exit_code == 137


async def test_100_000_lines(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("seq 100000", tmp_path, lines)
    assert lines == [str(number) for number in range(1, 100_001)]
    assert finished.tail == tuple(str(number) for number in range(99_981, 100_001))


async def test_binary_output(tmp_path: Path, lines: list[str]) -> None:
    await go(r"printf 'a\377b\303\050\000c\nd\r\n\033[31mred\033[0m \033]0;title\007x\n10%%\r20%%\r'", tmp_path, lines)
    assert lines == ["a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}(c", "d", "red x", "10%", "20%"]


async def test_random_bytes_are_handled(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("head -c 300000 /dev/urandom", tmp_path, lines)
    assert finished.exit_code == 0
    assert "\0" not in "".join(lines)


async def test_character_split_between_two_writes_is_joined(tmp_path: Path, lines: list[str]) -> None:
    await go(r"printf '\303'; sleep 0.1; printf '\244\n'", tmp_path, lines)
    assert lines == ["ä"]


async def test_long_line_is_delivered_in_pieces_of_64_kib(tmp_path: Path, lines: list[str]) -> None:
    await go("head -c 200000 /dev/zero | tr '\\0' x; echo; echo end", tmp_path, lines)
    assert [len(line) for line in lines] == [65536, 65536, 65536, 200000 - 3 * 65536, 3]


async def test_secrets_are_masked_everywhere(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("echo token=$A; exit 1", tmp_path, lines, env={"A": "hunter22"}, secrets=["hunter22"])
    assert lines == [f"token={MASK}"]
    assert finished.tail == (f"token={MASK}",)


@pytest.mark.parametrize("before", range(65536 - 9, 65536 + 1))
async def test_a_secret_across_the_cut_of_a_long_line_is_masked(tmp_path: Path, lines: list[str], before: int) -> None:
    await go(
        f"head -c {before} /dev/zero | tr '\\0' x; printf hunter22; sleep 0.02; head -c 70000 /dev/zero | tr '\\0' y",
        tmp_path,
        lines,
        secrets=["hunter22"],
    )
    assert "".join(lines) == "x" * before + MASK + "y" * 70000


async def test_the_secret_in_the_command_itself_is_masked_in_errors(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(CommandFailed) as failed:
        await go("sleep 60 # hunter22", tmp_path, lines, secrets=["hunter22"], timeout=0.1)
    assert failed.value.what == f"sleep 60 # {MASK}: timed out after 0.1 s; its processes were ended"


async def test_timeout_ends_the_process_group(tmp_path: Path, lines: list[str]) -> None:
    command = "trap '' TERM; sleep 60 & echo $! > child; wait"
    with pytest.raises(CommandFailed, match=r"^lint: timed out after 3 s; its processes were ended\n  hint: .*timeout"):
        await go(command, tmp_path, lines, timeout=3.0, grace=0.1, name="lint")
    assert not await alive(tmp_path / "child")


async def test_nested_processes_that_ignore_sigterm_are_killed(tmp_path: Path, lines: list[str]) -> None:
    nested = python(
        tmp_path,
        """
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        depth = int(sys.argv[1])
        if depth:
            subprocess.Popen([sys.executable, __file__, str(depth - 1)])
        open(f"pid{depth}", "w").write(str(os.getpid()))
        time.sleep(60)
        """,
    )
    running = asyncio.create_task(go(f"{nested} 2", tmp_path, lines, grace=0.2))
    for depth in range(3):
        await appears(tmp_path / f"pid{depth}")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for depth in range(3):
        assert not await alive(tmp_path / f"pid{depth}")


async def test_output_after_sigterm_is_delivered(tmp_path: Path, lines: list[str]) -> None:
    command = "trap 'echo tidying; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
    with pytest.raises(CommandFailed):
        await go(command, tmp_path, lines, timeout=3.0, grace=60.0)
    assert lines[0] == "ready"
    assert lines[-1] == "tidying"


async def test_cancelling_ends_the_group(tmp_path: Path, lines: list[str]) -> None:
    command = "sleep 60 & echo $! > child; echo $$ > shell; trap '' TERM; wait; sleep 60"
    running = asyncio.create_task(go(command, tmp_path, lines, grace=0.1))
    await appears(tmp_path / "shell")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not await alive(tmp_path / "child")
    assert not await alive(tmp_path / "shell")


async def test_cancelling_twice_does_not_wait_for_the_grace(tmp_path: Path, lines: list[str]) -> None:
    running = asyncio.create_task(
        go("trap '' TERM; echo $$ > shell; sleep 60; sleep 60", tmp_path, lines, grace=1000.0)
    )
    await appears(tmp_path / "shell")
    running.cancel()
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert not await alive(tmp_path / "shell")


async def test_background_process_that_holds_the_output_is_ended(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("sleep 60 & echo $! > pid; echo done", tmp_path, lines)
    assert finished.exit_code == 0
    assert lines == ["done"]
    assert not await alive(tmp_path / "pid")


async def test_background_process_that_writes_forever_does_not_block(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("yes & sleep 0.05; exit 3", tmp_path, lines)
    assert finished.exit_code == 3


async def test_process_that_left_the_group_does_not_block(tmp_path: Path, lines: list[str]) -> None:
    await go("setsid sleep 30 & echo $! > pid; echo done", tmp_path, lines)
    psutil.Process(int((tmp_path / "pid").read_text())).kill()
    assert lines == ["done"]


async def test_an_error_in_on_line_ends_the_command_and_is_raised(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError, match="first"):
        await run(
            "echo $$ > pid; echo first; sleep 60", cwd=tmp_path, env=clean_environment(), timeout=60, on_line=refuse
        )
    assert not await alive(tmp_path / "pid")


async def test_no_descriptor_stays_open(tmp_path: Path, lines: list[str]) -> None:
    await go("true", tmp_path, lines)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await go("true", tmp_path, lines)
    with pytest.raises(CommandFailed):
        await go("true", tmp_path / "gone", lines)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_command_that_cannot_be_started(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(CommandFailed, match=r"^unit: cannot be started in .*gone: No such file or directory"):
        await go("true", tmp_path / "gone", lines, name="unit")


async def test_shell_reports_a_missing_program(tmp_path: Path, lines: list[str]) -> None:
    finished = await go("no-such-program --at all", tmp_path, lines)
    assert finished.exit_code == 127
    assert "no-such-program" in finished.tail[-1]


def test_the_environment_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    kept = {"PATH": "/bin", "HOME": "/home/a", "LANG": "C", "LC_ALL": "C", "TMPDIR": "/t", "https_proxy": "http://p"}
    left = {
        "PREFECT_API_KEY": "x",
        "PREFECT_API_URL": "x",
        "HEADWAY_HOME": "x",
        "GITHUB_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "DB_PASSWORD": "x",
        "XDG_TOKEN_HOME": "x",
        "DATABASE_URL": "x",
        "GIT_DIR": "x",
        "PYTHONPATH": "x",
    }
    for name, value in {**kept, **left}.items():
        monkeypatch.setenv(name, value)
    assert clean_environment() == {**kept, "CI": "true", "PYTHONUNBUFFERED": "1"}


def test_command_of_a_fork_gets_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = Source(
        repo="/repo",
        ref="main",
        sha="a" * 40,
        tree="b" * 40,
        author="Bob",
        subject="Change",
        committed_at=datetime.now(UTC),
        workspace=str(tmp_path / "work"),
        trusted=False,
    )
    for name in list(os.environ):
        monkeypatch.delenv(name)
    told = {"PATH": "/bin", "LANG": "C", "PIP_INDEX_URL": "https://pypi.example/simple", "HOME": "/root"}
    ours = {
        "DOCKER_HOST": "tcp://engine",
        "DOCKER_CONFIG": "/root/.docker",
        "XDG_CONFIG_HOME": "/root/.config",
        "PIP_EXTRA_INDEX_URL": "https://ann:hunter2@pypi.example/simple",
        "https_proxy": "http://ann:hunter2@proxy",
        "HEADWAY_SECRET_A": "x",
        "PREFECT_API_AUTH_STRING": "x",
    }
    for name, value in {**told, **ours}.items():
        monkeypatch.setenv(name, value)
    home = {"HOME": str(tmp_path / "work.home"), "CI": "true", "PYTHONUNBUFFERED": "1"}
    assert clean_environment(theirs) == {**told, **home}
    assert list((tmp_path / "work.home").iterdir()) == []
    assert clean_environment(theirs.model_copy(update={"trusted": True}))["DOCKER_HOST"] == "tcp://engine"


async def test_background_processes_in_a_session_of_their_own_are_ended(tmp_path: Path, lines: list[str]) -> None:
    """As a browser or a build daemon is started."""
    seconds = str(500_000 + os.getpid())
    finished = await go(f"setsid sleep {seconds} & setsid sh -c 'sleep {seconds} & exit' & sleep 0.5", tmp_path, lines)
    assert finished.exit_code == 0
    left = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", seconds]]
    assert left == []
