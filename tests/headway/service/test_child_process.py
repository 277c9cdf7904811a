"""Logs of the services of `headway up`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headway.service import child_process
from headway.service.child_process import ChildProcess, run_to_end


async def test_a_large_log_is_renamed_when_its_process_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "LOG_LIMIT", 10)
    log = tmp_path / "web.log"
    process = ChildProcess("web", [sys.executable, "-c", "print('a line that is long')"], log, {})
    for _ in range(2):
        assert await run_to_end(process)
    assert log.read_text() == (tmp_path / "web.log.1").read_text() == "a line that is long\n"
