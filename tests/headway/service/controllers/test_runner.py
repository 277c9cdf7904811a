"""The process of the controllers, when the process that started it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_killed_receiver_leaves_no_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.service.controllers.runner"],
            env={**os.environ, "HEADWAY_HOME": str(tmp_path / "home"), "PREFECT_API_URL": "http://127.0.0.1:1/api"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline()  # it has begun
        process.stdout.close()  # as the kernel does for a process that is killed: first no one reads
        process.stdin.write(b".")
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)
    said = log.read_text()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
