"""Part of bench/resilience.py: 200 live apps on one machine, each behind its own Envoy, without a sysctl."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from blocks.targets.process.target import ProcessTarget
from headway.domain.revision import LaunchSpec
from headway.domain.traffic import Traffic
from headway.testing.contracts import launch_spec, sample_bundle, until

APPS = int(os.environ.get("APPS", "200"))
AT_ONCE = 2  # launches
IDLE = 20.0  # seconds
SHA = "1" * 40
LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="hw-") as place, target_in(Path(place) / "target") as target:
        spec = launch_spec(sample_bundle(Path(place) / "bundle")).model_copy(update={"instances": 1})
        names = [f"app-{number}" for number in range(APPS)]
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            seconds = list(pool.map(lambda name: launch(target, name, spec), names))
        launched = time.monotonic() - begun
        processes = psutil.Process(os.getpid()), *supervised(target)
        return {
            "apps": APPS,
            "inotify instances: limit of a user": int(LIMIT.read_text()),
            "inotify instances: used by the apps": sum(inotify_instances(one) for one in processes[1:]),
            "seconds until all are live": round(launched, 1),
            "seconds for each of the first ten": round(statistics.median(seconds[:10]), 2),
            "seconds for each of the last ten": round(statistics.median(seconds[-10:]), 2),
            "failed requests, one to each app": sum(not answers(target, name) for name in names),
            "MB for each app": round(sum(map(own_memory, processes[1:])) / APPS / 1e6, 1),
            "share of a core, idle": round(idle_share(processes[1:]), 3),
        }


@contextmanager
def target_in(directory: Path) -> Iterator[ProcessTarget]:
    target = ProcessTarget(directory=directory)
    try:
        yield target
    finally:
        target.destroy()


def launch(target: ProcessTarget, app: str, spec: LaunchSpec) -> float:
    """Seconds until it serves."""
    begun = time.monotonic()
    revision = spec.revision(app, SHA)
    target.launch(revision, spec)
    until(lambda: target.ready(revision).ready == 1, 120)
    target.route(app, Traffic.all_to(revision))
    return time.monotonic() - begun


def answers(target: ProcessTarget, app: str) -> bool:
    url = target.observe(app).url
    assert url is not None
    return httpx.get(url, trust_env=False).status_code == httpx.codes.OK


def supervised(target: ProcessTarget) -> list[psutil.Process]:
    """supervisord and all below it."""
    assert target.directory is not None
    supervisor = psutil.Process(int((target.directory / "supervisord.pid").read_text()))
    return [supervisor, *supervisor.children(recursive=True)]


def inotify_instances(process: psutil.Process) -> int:
    return sum("inotify" in str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir())


def own_memory(process: psutil.Process) -> int:
    """Bytes that would be free without it."""
    return int(process.memory_full_info().uss)


def idle_share(processes: tuple[psutil.Process, ...]) -> float:
    def spent() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in processes)

    before = spent()
    time.sleep(IDLE)
    return (spent() - before) / IDLE
