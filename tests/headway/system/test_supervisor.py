"""Programs outlive the supervisord, and the version of Headway, that started them."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headway.system import directories
from headway.system.supervisor import Program, Supervisor


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    place = Path(tempfile.mkdtemp(prefix="headway-supervisor-"))
    made = Supervisor(place)
    yield made
    made.shut_down()
    directories.remove(place)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_supervisor_that_starts_anew_runs_the_programs_of_an_older_installation(supervisor: Supervisor) -> None:
    supervisor.start(Program(name="sleeper", command="exec sleep 600", log=str(supervisor.home / "log")))
    until(lambda: supervisor.pid("sleeper"))
    (configuration,) = supervisor.home.glob("programs/*.ini")
    present = configuration.read_text()
    configuration.write_text(present.replace("/launcher.py", "/an-older-launcher.py"))
    first = supervisor.pid("sleeper")
    psutil.Process(int((supervisor.home / "supervisord.pid").read_text())).send_signal(signal.SIGKILL)
    until(lambda: not supervisor.running)

    supervisor.ensure()

    assert configuration.read_text() == present
    assert supervisor.pid("sleeper") == first
    psutil.Process(first).children()[0].kill()
    until(lambda: supervisor.pid("sleeper") not in (None, first))


def launchers(supervisor: Supervisor) -> list[int]:
    """Processes that run or stand in for a program of this supervisor."""
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if str(supervisor.home / "programs") in str(one.info["cmdline"])
    ]


def test_a_supervisor_that_is_killed_again_and_again_leaves_no_launchers(supervisor: Supervisor) -> None:
    supervisor.start(Program(name="sleeper", command="exec sleep 600", log=str(supervisor.home / "log")))
    until(lambda: supervisor.pid("sleeper"))
    for _ in range(3):
        psutil.Process(int((supervisor.home / "supervisord.pid").read_text())).send_signal(signal.SIGKILL)
        until(lambda: not supervisor.running)
        supervisor.ensure()
        until(lambda: len(launchers(supervisor)) == 2)
    supervisor.stop("sleeper")
    assert launchers(supervisor) == []


def test_stop_ends_processes_outside_of_the_group(supervisor: Supervisor) -> None:
    """As a browser or a job runner is started, by an app that ignores SIGTERM."""
    hidden = f"sleep {400_000 + supervisor.home.stat().st_ino}"
    command = f"trap '' TERM; setsid {hidden} & echo up; while :; do sleep 0.1; done"
    log = supervisor.home / "log"
    supervisor.start(Program(name="stub", command=command, log=str(log), grace=1))
    until(lambda: log.exists() and "up" in log.read_text())
    until(lambda: any(hidden == " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])))
    supervisor.stop("stub")
    assert not any(hidden == " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))


def test_kept_program_restarts_once_its_files_are_back(supervisor: Supervisor) -> None:
    needed, log = supervisor.home / "needed", supervisor.home / "log"
    command = f"echo try; cat {needed} && exec sleep 600"
    supervisor.start(Program(name="shop", command=command, log=str(log)))
    until(lambda: supervisor.given_up("shop"))
    assert supervisor.given_up("shop") == "it ended with exit code 1, 2 times in a row"
    supervisor.keep("shop", "unknown")
    until(lambda: log.read_text().count("try") >= 5)
    assert supervisor.given_up("shop") is None
    needed.write_text("there\n")
    until(lambda: "there" in log.read_text())
    supervisor.stop("shop")
    assert [file.name for file in supervisor.home.glob("programs/*")] == []
