"""Start a `headway up` for a benchmark, and create repositories to release with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from headway.system.supervisor import Supervisor

PORTS = ("4379", "4279")
START = 400.0  # seconds


@dataclass(frozen=True)
class Service:
    """A running service, and the environment in which `headway` finds it."""

    place: Path
    environment: dict[str, str]
    api: str = f"http://127.0.0.1:{PORTS[1]}/api"
    web: str = f"http://127.0.0.1:{PORTS[0]}"
    headway: str = str(Path(sys.executable).with_name("headway"))

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def login(self) -> str:
        """Credential of the Prefect server, as `user:password`."""
        return (self.home / "prefect-credential").read_text()

    @property
    def prefect(self) -> httpx.Client:
        """A client of the Prefect API."""
        user, _, password = self.login.partition(":")
        return httpx.Client(base_url=self.api, auth=(user, password), trust_env=False, timeout=60)

    def process(self, words: str) -> psutil.Process:
        """The child process of `headway up` whose command line contains these words."""
        up = psutil.Process(json.loads((self.home / "up.json").read_text())["pid"])
        return next(each for each in up.children(recursive=True) if words in " ".join(each.cmdline()))


@contextmanager
def running(**settings: str) -> Iterator[Service]:
    """Start `headway up` with these variables in a temporary directory, and clean up at the end.

    Raises RuntimeError if it does not start.
    """
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        service = Service(place, {**os.environ, "HEADWAY_HOME": str(place / "home"), "NO_COLOR": "1", **settings})
        log = place / "up.log"
        with log.open("w") as output:
            up = subprocess.Popen(
                [service.headway, "up", "--port", PORTS[0], "--prefect-port", PORTS[1]],
                env=service.environment,
                stdout=output,
                stderr=output,
            )
        try:
            end = time.monotonic() + START
            while "Ctrl-C" not in log.read_text():
                if up.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(log.read_text())
                time.sleep(0.2)
            yield service
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(90)
            for target in (place / "home" / "targets").glob("*"):
                Supervisor(target).shut_down()


def repository(path: Path, files: dict[str, str]) -> Path:
    """A git repository with one commit."""
    path.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=path, check=True)
    commit(path, files)
    return path


def commit(path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
    for arguments in (("add", "-A"), (*who, "commit", "-q", "-m", "change")):
        subprocess.run(["git", *arguments], cwd=path, check=True)
