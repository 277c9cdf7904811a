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
    end = time.monotonic() + 30
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
