from __future__ import annotations

from pathlib import Path

import pytest

from headway.system import output_log
from headway.system.output_log import OutputLog


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_short_output_is_shown_and_kept_line_by_line(tmp_path: Path) -> None:
    shown: list[str] = []
    with output_log.output_log(tmp_path / "release" / "unit.log", shown.append) as log:
        for line in ("one", "", "caf\u00e9"):
            log(line)
        assert shown == ["one", "", "caf\u00e9"]
    assert shown == ["one", "", "caf\u00e9"]
    assert (tmp_path / "release" / "unit.log").read_text() == "one\n\ncaf\u00e9\n"


def test_a_flood_is_shown_in_part_and_kept_whole(tmp_path: Path) -> None:
    shown: list[str] = []
    clock = Clock()
    log = OutputLog(tmp_path / "noisy.log", shown.append, clock)
    for number in range(60_000):
        log(f"line {number}")
    log.close()
    assert 1_000 < len(shown) < 2_000
    assert shown[:2] == ["line 0", "line 1"]
    assert shown[-20:] == [f"line {number}" for number in range(59_980, 60_000)]
    gap = shown[-21]
    missing = 60_000 - (len(shown) - 1)
    assert f"{missing:,} lines left out here" in gap
    assert str(tmp_path / "noisy.log") in gap
    assert (tmp_path / "noisy.log").read_text().splitlines() == [f"line {number}" for number in range(60_000)]


def test_after_a_flood_lines_are_shown_again(tmp_path: Path) -> None:
    shown: list[str] = []
    clock = Clock()
    log = OutputLog(tmp_path / "noisy.log", shown.append, clock)
    for _ in range(10_000):
        log("flood")
    before = len(shown)
    clock.now += 60.0
    log("the next test")
    assert "lines left out here" in shown[before]
    assert shown[-1] == "the next test"
    log.close()


def test_a_steady_output_of_hours_is_shown_whole(tmp_path: Path) -> None:
    shown: list[str] = []
    clock = Clock()
    log = OutputLog(tmp_path / "steady.log", shown.append, clock)
    for number in range(20_000):
        clock.now += 0.2
        log(f"test_{number} PASSED")
    log.close()
    assert len(shown) == 20_000


def test_a_long_line_is_cut_where_it_is_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    log = OutputLog(tmp_path / "long.log", shown.append)
    log("x" * 50_000)
    log.close()
    assert shown == ["x" * 4_000 + " [46,000 characters left out here]"]
    assert (tmp_path / "long.log").read_text() == "x" * 50_000 + "\n"


def test_full_disk_is_reported_and_does_not_stop_the_command() -> None:
    shown: list[str] = []
    log = OutputLog(Path("/dev/full"), shown.append)
    log("one")
    log("two")
    log.close()
    assert shown == ["one", "two", "[2 lines are not in /dev/full: No space left on device]"]


def test_output_file_has_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_log, "FILE_LIMIT", 1_000_000)
    shown: list[str] = []
    log = OutputLog(tmp_path / "endless.log", shown.append)
    for _ in range(40):
        log("y" * 49_999)
    log.close()
    assert (tmp_path / "endless.log").stat().st_size == 1_000_000
    assert "20 lines are not in" in shown[-1]
    assert "1 MB" in shown[-1]
