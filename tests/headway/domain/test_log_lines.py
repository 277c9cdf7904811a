"""Log lines with their times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headway.domain.log_lines import LogLine, by_time

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "text", "at"),
    [
        ("2026-05-04T03:02:01.500Z GET / 200", "GET / 200", AT + timedelta(milliseconds=500)),
        ("2026-05-04T03:02:01.500000999Z GET /", "GET /", AT + timedelta(milliseconds=500)),
        ("2026-05-04T05:02:01+02:00   indented", "  indented", AT),
        ("2026-05-04T03:02:01.000Z ", "", AT),
        ("2026-05-04T03:02:01Z", "", AT),
        ("GET / at 2026-05-04T03:02:01Z", "GET / at 2026-05-04T03:02:01Z", None),
        ("2026-05-04 03:02:01 local", "2026-05-04 03:02:01 local", None),
        ("", "", None),
    ],
)
def test_the_time_before_a_line_is_read(raw: str, text: str, at: datetime | None) -> None:
    assert LogLine.stamped("shop-1", raw) == LogLine("shop-1", text, at)


def test_lines_of_several_instances_are_in_order_of_time() -> None:
    def line(instance: str, text: str, second: int | None = None) -> LogLine:
        return LogLine(instance, text, None if second is None else AT + timedelta(seconds=second))

    one = [line("a", "first", 1), line("a", "  its traceback"), line("a", "fourth", 4)]
    other = [line("b", "without a time"), line("b", "second", 2), line("b", "third", 3)]

    assert [found.text for found in by_time([*one, *other])] == [
        *("without a time", "first", "  its traceback", "second", "third", "fourth")
    ]
