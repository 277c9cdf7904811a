"""Part of bench/trust.py: what isolation adds to a check, which is `true`, in each runner in turn."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from headway.domain.ports import Runner
from headway.domain.workload import Workload
from headway.system.command_runner import clean_environment
from headway.system.runners.host import HostRunner
from headway.system.runners.sandbox import SandboxRunner

RUNS = 25


async def measured(runners: list[Runner]) -> dict[str, list[float]]:
    """Seconds of each run, by runner."""
    seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    with tempfile.TemporaryDirectory(prefix="headway-bench-") as place:
        (workspace := Path(place) / "workspace").mkdir()
        check = Workload("true", workspace, clean_environment(), 60.0, print, "check", home=Path(place) / "home")
        for number in range(RUNS + 1):
            for runner in runners:
                begun = time.perf_counter()
                finished = await runner.run(check)
                if finished.exit_code:
                    raise SystemExit(f"{runner.name}: {finished}")
                if number:  # the first has the self-test and cold caches
                    seconds[runner.name].append(time.perf_counter() - begun)
    return seconds


def figures() -> dict[str, list[float]]:
    """Seconds of a check in the host runner, and in each isolated one that works on this machine."""
    sandbox = SandboxRunner()
    return asyncio.run(measured([HostRunner(), *([] if sandbox.missing() else [sandbox])]))
