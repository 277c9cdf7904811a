"""Servers that tests share."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from headway.system import tls
from tests.standins.clusters import Borrowed, Namespace, borrowed
from tests.standins.docker_engine import Engine, running
from tests.standins.hosted_apps import Trust

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("headway", deadline=None)
hypothesis.settings.load_profile("headway")
hypothesis.settings.register_profile("fuzz", max_examples=15_000, print_blob=True)  # by hand; CI has hypothesis' own


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
