"""Directories for Unix sockets, whose paths have at most 107 bytes."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from headway.domain.errors import UsageError
from headway.system.unix_socket import LONGEST_DIRECTORY, socket_directory


def test_a_short_directory_is_used_itself() -> None:
    short = Path(f"/tmp/hw-{os.getpid()}")
    try:
        assert socket_directory(short) == short
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(short)


@pytest.mark.parametrize("name", ["d" * LONGEST_DIRECTORY, "ü" * 30])
def test_a_long_directory_gets_a_short_one_always_the_same(tmp_path: Path, name: str) -> None:
    short = socket_directory(tmp_path / name)
    try:
        assert short == socket_directory(tmp_path / name) != socket_directory(tmp_path / f"{name}2")
        assert len(os.fsencode(short / ("a" * 40 + ".admin"))) < 107
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(short)
        shutil.rmtree(socket_directory(tmp_path / f"{name}2"))


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: ours + 1)
    long = tmp_path / ("d" * LONGEST_DIRECTORY)
    with pytest.raises(UsageError, match="belongs to another user") as refused:
        socket_directory(long)
    shutil.rmtree(refused.value.what.partition(":")[0])
