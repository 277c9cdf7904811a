"""Whether a recorded process still runs."""

from __future__ import annotations

import subprocess
import time

import psutil
import pytest

from headway.system.processes import ProcessIdentity, this_process


def identity(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    created = psutil.Process(process.pid).create_time()
    return this_process().model_copy(update={"pid": process.pid, "created": created})


def test_this_process_runs_here() -> None:
    assert this_process().is_here
    assert this_process().runs


def test_a_killed_process_does_not_run_even_before_its_parent_has_noticed() -> None:
    process = subprocess.Popen(["sleep", "600"])
    recorded = identity(process)
    assert recorded.runs
    process.kill()
    deadline = time.monotonic() + 60
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not recorded.runs
    process.wait()
    assert not recorded.runs


def test_another_process_with_the_same_number_is_not_it() -> None:
    assert not this_process().model_copy(update={"created": this_process().created - 3600}).runs


@pytest.mark.parametrize("name", ["host", "boot"])
def test_a_process_of_another_host_boot_or_container_is_not_here(name: str) -> None:
    assert not this_process().model_copy(update={name: "another"}).is_here
