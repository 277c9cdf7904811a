"""Servers that tests share."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [found[-1] / program, *arguments], check=True, capture_output=True, timeout=120, cwd=place, **as_postgres
        )  # type: ignore[call-overload]

    run("initdb", "-D", str(place / "data"), "-U", "headway", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off -c timezone=America/New_York"
    run("pg_ctl", "-D", str(place / "data"), "-o", options, "-l", str(place / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://headway@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(place / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(place)
