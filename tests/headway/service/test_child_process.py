"""Processes of `headway up`: they die with it, are started again, and have as long to start as they make progress."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from headway.domain.errors import ServiceUnavailable
from headway.service import child_process, stack
from headway.service.child_process import ChildProcess, Waiting

PARENT = """
import asyncio, os, sys
from pathlib import Path
from headway.service.child_process import ChildProcess

async def run():
    child = ChildProcess("child", ["sleep", "600"], Path(sys.argv[1]), os.environ)
    await child.start()
    print(child.process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(run())
"""


def shell(tmp_path: Path, command: str) -> ChildProcess:
    return ChildProcess("child", ["sh", "-c", command], tmp_path / "child.log", os.environ)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until_content(file: Path, content: str) -> None:
    until(lambda: file.exists() and file.read_text() == content)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert not has_ended(child)
        parent.kill()
        until(lambda: has_ended(child))


async def test_a_large_log_is_renamed_when_its_process_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "LOG_LIMIT", 10)
    child = shell(tmp_path, "echo a line that is long")
    for _ in range(2):
        await child.start()
        assert await Waiting(child, print).until_end()
    assert child.log.read_text() == child.log.with_suffix(".log.1").read_text() == "a line that is long\n"


async def test_a_start_takes_as_long_as_there_is_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "IDLE", 3.0)
    monkeypatch.setattr(child_process, "ANNOUNCE", 0.5)
    ready = tmp_path / "ready"
    child = shell(tmp_path, f"for i in 1 2 3 4 5 6 7 8; do sleep 0.5; echo step $i; done; touch {ready}; sleep 600")
    said: list[str] = []
    await child.start()
    try:
        await Waiting(child, said.append).until_exists(ready)
    finally:
        await child.stop(deadline=0.0)
    assert said
    assert all("child: starting for" in line and str(child.log) in line for line in said)


async def test_a_start_without_progress_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "IDLE", 0.5)
    child = shell(tmp_path, "echo begun; sleep 600")
    await child.start()
    try:
        with pytest.raises(ServiceUnavailable, match=r"child is not ready after .* s of them idle: .*\nbegun"):
            await Waiting(child, print).until_exists(tmp_path / "never")
    finally:
        await child.stop(deadline=0.0)


async def test_a_process_that_ends_while_starting_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    child = shell(tmp_path, "echo no database; exit 3")
    await child.start()
    with pytest.raises(ServiceUnavailable, match="child ended while starting:\nno database"):
        await Waiting(child, print).until_exists(tmp_path / "never")


@pytest.mark.parametrize(("command", "succeeds"), [("exit 0", True), ("exit 3", False)])
async def test_a_command_that_ends_by_itself(tmp_path: Path, command: str, succeeds: bool) -> None:
    child = shell(tmp_path, command)
    await child.start()
    assert await Waiting(child, print).until_end() is succeeds


async def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    child = shell(tmp_path, f"echo x >> {tmp_path / 'starts'}; sleep 600")
    said: list[str] = []
    await child.start()
    keeping = asyncio.create_task(stack.Stack("", "", "", tmp_path, [child]).keep_running(said.append))
    starts = tmp_path / "starts"
    killed: set[int] = set()
    for number in (1, 2):
        await asyncio.to_thread(until_content, starts, "x\n" * number)
        # The program may have written before its start has returned.
        await asyncio.to_thread(until, lambda: child.process is not None and child.process.pid not in killed)
        assert child.process is not None
        killed.add(child.process.pid)
        os.killpg(child.process.pid, signal.SIGKILL)
    await asyncio.to_thread(until_content, starts, "x\n" * 3)
    keeping.cancel()
    await asyncio.wait([keeping])
    await child.stop(deadline=0.0)
    assert said == [f"child has ended (SIGKILL) and is started again; its log: {child.log}"] * 2


async def test_a_process_that_cannot_stay_ends_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "RESTARTS", 2)
    child = shell(tmp_path, "echo the port is taken; exit 1")
    await child.start()
    with pytest.raises(ServiceUnavailable, match=r"child has ended 3 times in .* \(exit 1\):\n(the port is taken\n?)+"):
        await stack.Stack("", "", "", tmp_path, [child]).keep_running(print)
