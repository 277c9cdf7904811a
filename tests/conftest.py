"""Shared servers, their markers, and a check that a run leaves no process behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from headway.system import tls
from tests.standins import process_state
from tests.standins.clusters import Borrowed, Namespace, borrowed
from tests.standins.docker_engine import Engine, running
from tests.standins.hosted_apps import Trust

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("headway", deadline=None)
hypothesis.settings.load_profile("headway")
hypothesis.settings.register_profile("fuzz", max_examples=15_000, print_blob=True)  # by hand; CI has hypothesis' own


# Fixture -> marker: tests of `make check` need none of these.
NEEDS = {
    "engine": "docker",
    "cluster": "kubernetes",
    "namespace": "kubernetes",
    "postgres": "postgres",
    "browser": "browser",
}
ENDING = 15.0  # seconds in which processes of the last tests may still end
TEMPORARY = pytest.StashKey[Path]()
LEFT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run its own temporary folder, to find what it leaves behind."""
    if not hasattr(config, "workerinput"):
        config.stash[TEMPORARY] = Path(tempfile.mkdtemp(prefix="hw-"))
        config.stash[TEMPORARY].chmod(0o755)  # PostgreSQL runs as a user of its own
        os.environ["TMPDIR"] = str(config.stash[TEMPORARY])
        tempfile.tempdir = None
        # What the user who runs the tests has configured for git is no part of them.
        os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        # A shell's background job ignores SIGINT, and so would every program that the tests start and interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(NEEDS[fixture])


@pytest.hookimpl(trylast=True)  # the workers have ended by then
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves a process running has failed. Ends it, and removes the run's temporary folder."""
    place = session.config.stash.get(TEMPORARY, None)
    if place is None:
        return
    end = time.monotonic() + ENDING
    while (left := _processes_of(place)) and time.monotonic() < end:
        time.sleep(0.2)
    session.config.stash[LEFT] = [f"{one.pid} {' '.join(one.cmdline())[:160]}" for one in left if one.is_running()]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)
    shutil.rmtree(place, ignore_errors=True)
    if session.config.stash[LEFT] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(LEFT, []):
        terminalreporter.write_line(f"left running by the tests: {line}", red=True)


def _processes_of(place: Path) -> list[psutil.Process]:
    """Processes that have the folder as TMPDIR or on their command line, but for this one and its parents."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any("multiprocessing.resource_tracker" in one for one in words):
                continue  # the standard library's: it ends with this process
            named = process.environ().get("TMPDIR") == str(place) or any(str(place) in one for one in words)
            if named and process.pid not in ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True)
def _process_state() -> Iterator[None]:
    """The next test of this process finds it as this one did, in whatever order they run."""
    with process_state.restored():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of our own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    place = Path(tempfile.mkdtemp(prefix="headway-postgres-"))
    as_postgres: dict[str, object] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        postgres = pwd.getpwnam("postgres")
        os.chown(place, postgres.pw_uid, postgres.pw_gid)
        as_postgres = {"user": postgres.pw_uid, "group": postgres.pw_gid}

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [found[-1] / program, *arguments], capture_output=True, text=True, timeout=120, cwd=place, **as_postgres
        )  # type: ignore[call-overload]
        if done.returncode:
            log = place / "log"
            pytest.fail(f"{program}: {done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}")

    run("initdb", "-D", str(place / "data"), "-U", "headway", "-A", "trust", "--no-sync")
    # A socket in a directory of its own: a TCP port found free now may be anybody's when initdb is done.
    options = f"-k {place} -c listen_addresses= -c fsync=off -c timezone=America/New_York"
    run("pg_ctl", "-D", str(place / "data"), "-o", options, "-l", str(place / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://headway@/postgres?host={place}"
    finally:
        run("pg_ctl", "-D", str(place / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker Engine of our own. Its sockets' paths are short, and it is on a disk that overlays work on."""
    with running(Path(tempfile.mkdtemp(prefix="headway-docker-"))) as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Borrowed:
    return borrowed()


@pytest.fixture
def namespace(cluster: Borrowed, tmp_path: Path) -> Iterator[Namespace]:
    """One on the cluster, for a test of its own."""
    with cluster.namespace(tmp_path) as made:
        yield made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs CAP_SYS_ADMIN")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trust]:
    """This process believes the certificates of the stand-ins' edges."""
    made = Trust(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    tls._trusted.cache_clear()
    yield made
    tls._trusted.cache_clear()
