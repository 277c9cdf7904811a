"""Release an app again and again, and measure what grows: `python bench/soak.py --releases 300`.

Every third version is bad and is rolled back by its smoke test. After every 25 releases: seconds a release, processor
seconds of Prefect's server a release, memory, processes, open files, listening ports, rows of the ledger and of
Prefect's database, and disk. What is flat stays within 10 % of its first sample, but for what retention allows.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from service import Service, repository, running

SETTINGS = """
app: soak
checks: {check: "true"}
run: exec python3 app.py
environments:
  staging: {target: process/staging}
  production: {target: process/production, stop_grace: 2s, drain: 1s, smoke: [{get: /smoke, deadline: 1s}]}
"""
APP = """
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(500 if self.path == "/smoke" and BAD else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Sample:
    """State after a number of releases. Seconds and processor seconds are of the releases since the last sample."""

    releases: int
    seconds: float
    slowest: float
    server_cpu: float
    idle_cpu: float
    memory_mb: dict[str, int]
    processes: int
    files: int
    ports: int
    ledger_rows: int
    prefect_rows: int
    disk_mb: dict[str, float]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--releases", type=int, default=30)
    options.add_argument("--every", type=int, default=25, help="releases between two samples")
    options.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    asked = options.parse_args()
    with running() as service:
        samples = []
        for sample in soak(service, asked.releases, asked.every):
            samples.append(sample)
            if not asked.json:
                print(line(sample), flush=True)
    if asked.json:
        print(json.dumps([asdict(sample) for sample in samples], indent=2))


def soak(service: Service, releases: int, every: int) -> Iterator[Sample]:
    repo = repository(service.place / "soak", {"headway.yaml": SETTINGS, "app.py": f"BAD = False\n{APP}"})
    release(service, repo, bad=False)  # the first starts the supervisors and the Envoys
    server = service.process("prefect.server")
    taken: list[float] = []
    used = cpu(server)
    for number in range(1, releases + 1):
        bad = number % 3 == 0
        (repo / "app.py").write_text(f"BAD = {bad}  # {number}\n{APP}")
        subprocess.run(["git", "commit", "--quiet", "--all", "--message", f"{number}"], cwd=repo, check=True)
        taken.append(release(service, repo, bad=bad))
        if number % every == 0 or number == releases:
            busy = (cpu(server) - used) / len(taken)
            yield measure(service, number, taken, busy, idle(server))
            taken, used = [], cpu(server)


def release(service: Service, repo: Path, *, bad: bool) -> float:
    """Seconds of the command. Raises RuntimeError if the release ends otherwise than it should."""
    begun = time.monotonic()
    done = subprocess.run(
        [service.headway, "release", str(repo), "--json"],
        env=service.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != int(bad):
        raise RuntimeError(f"exit {done.returncode}: {done.stdout}{done.stderr}")
    return time.monotonic() - begun


def measure(service: Service, number: int, taken: list[float], busy: float, idle_cpu: float) -> Sample:
    up = psutil.Process(json.loads((service.home / "up.json").read_text())["pid"])
    services = {"up": up, **{name: service.process(words) for name, words in SERVICES.items()}}
    ours = [one for one in psutil.process_iter(["environ"]) if is_ours(one, service)]
    return Sample(
        releases=number,
        seconds=round(statistics.median(taken), 2),
        slowest=round(max(taken), 2),
        server_cpu=round(busy, 2),
        idle_cpu=round(idle_cpu, 3),
        memory_mb={name: one.memory_info().rss >> 20 for name, one in services.items()},
        processes=len(ours),
        files=sum(one.num_fds() for one in ours if one.is_running()),
        ports=sum(connection.status == psutil.CONN_LISTEN for one in ours for connection in connections(one)),
        ledger_rows=rows(service.home / "ledger.db"),
        prefect_rows=rows(service.home / "prefect" / "prefect.db"),
        disk_mb={place.name: round(size(place) / 2**20, 1) for place in sorted(service.home.iterdir())},
    )


SERVICES = {
    "server": "prefect.server",
    "worker": "worker start",
    "web": "api.http_server",
    "controllers": "controllers.runner",
    "warm": "fork_server",
}
"""Name -> words of the command line."""


def is_ours(process: psutil.Process, service: Service) -> bool:
    environment: dict[str, str] = process.info["environ"] or {}
    return environment.get("HEADWAY_HOME") == str(service.home) or any(
        str(service.place) in value for value in environment.values()
    )


def connections(process: psutil.Process) -> list[psutil._ntuples.pconn]:
    try:
        return process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return []


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def idle(process: psutil.Process, seconds: float = 5.0) -> float:
    """Share of one processor that the process uses while nothing is released."""
    time.sleep(2.0)  # events of the last release are stored
    before = cpu(process)
    time.sleep(seconds)
    return (cpu(process) - before) / seconds


def rows(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=30)) as opened:
        tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(opened.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)


def size(place: Path) -> int:
    if place.is_file():
        return place.stat().st_size
    return sum(each.lstat().st_blocks * 512 for each in place.rglob("*"))


def line(sample: Sample) -> str:
    return "  ".join(f"{name} {value}" for name, value in asdict(sample).items())


if __name__ == "__main__":
    main()
