"""Log lines of instances, with the time at which each was printed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = ["LogLine", "by_time"]

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) ?")


class LogLine(NamedTuple):
    """One line that an instance printed. Without `at` the platform does not know when. Printed: `INSTANCE: TEXT`."""

    instance: str
    text: str
    at: datetime | None = None

    @classmethod
    def stamped(cls, instance: str, line: str) -> LogLine:
        """A line that begins with its time in RFC 3339; without one, all of it is the text."""
        if found := _STAMP.match(line):
            return cls(instance, line[found.end() :], datetime.fromisoformat(found[1]))
        return cls(instance, line)

    def __str__(self) -> str:
        return f"{self.instance}: {self.text}"


def by_time(lines: Iterable[LogLine]) -> list[LogLine]:
    """The lines in order of their times. One without a time stays behind the line that its instance printed before."""
    last: dict[str, datetime] = {}
    timed = []
    for line in lines:
        at = line.at or last.get(line.instance, datetime.min.replace(tzinfo=UTC))
        last[line.instance] = at
        timed.append((at, line))
    return [line for _, line in sorted(timed, key=lambda one: one[0])]
