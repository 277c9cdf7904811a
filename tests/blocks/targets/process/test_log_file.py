"""Logs that a launcher writes and rotates."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.targets.process.log_file import LogFile
from headway.system import launcher
from headway.system.launcher import Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.log"


def said(lines: list[str]) -> list[str]:
    """Without the times."""
    return [line[line.index("line") :] for line in lines]


def test_bytes_that_are_not_utf_8_are_replaced(path: Path) -> None:
    path.write_bytes(b"caf\xe9 one\n")
    log = LogFile(path)
    assert log.last(10) == ["caf\ufffd one"]
    with path.open("ab") as file:
        file.write(b"\xff two\n")
    assert log.new() == ["\ufffd two"]
    log.close()


def test_the_last_lines_are_those_before_the_new_ones(path: Path) -> None:
    path.write_text("".join(f"line {number}\n" for number in range(20_000)))
    log = LogFile(path)
    with path.open("a") as file:
        file.write("later\n")
    assert log.last(2) == ["line 19998", "line 19999"]
    assert log.last(0) == []
    assert len(log.last(1_000_000)) == 20_000
    assert log.new() == ["later"]
    assert log.new() == []
    log.close()


def test_a_line_is_new_when_it_is_complete(path: Path) -> None:
    path.touch()
    log = LogFile(path)
    with path.open("a") as file:
        file.write("half")
        file.flush()
        assert log.new() == []
        file.write(" and half\nrest")
        file.flush()
        assert log.new() == ["half and half"]
    log.close()


@pytest.mark.parametrize("between", [1, 2, 5])
def test_no_line_is_lost_at_a_rotation(path: Path, monkeypatch: pytest.MonkeyPatch, between: int) -> None:
    """`between` lines are written from one call to the next; each file has three."""
    monkeypatch.setattr(launcher, "LOG_BYTES", 90)
    written = Log(path, None)
    log = LogFile(path, from_start=True)
    seen: list[str] = []
    for number in range(40):
        written.write(b"line %d\n" % number)
        if number % between == 0:
            seen += log.new()
    seen += log.new()
    assert said(seen) == [f"line {number}" for number in range(40)]
    assert log.new() == []
    last = LogFile(path)
    assert said(last.last(3)) == ["line 37", "line 38", "line 39"]
    written.close()
    log.close()
    last.close()


def test_a_log_that_is_removed_says_nothing_more(path: Path) -> None:
    path.write_text("one\n")
    log = LogFile(path, from_start=True)
    path.unlink()
    assert log.new() == ["one"]
    assert log.new() == []
    log.close()
