"""What the log of a Prefect server says."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["errors_in"]

RECORD = re.compile(r"^(\d\d:\d\d:\d\d\.\d+ \| (?P<level>\w+)|(?P<plain>DEBUG|INFO|WARNING|ERROR|CRITICAL):)")


def errors_in(log: Path) -> list[str]:
    """The records of the level ERROR or CRITICAL, each with its traceback."""
    records: list[str] = []
    error = False
    for line in log.read_text(errors="replace").splitlines():
        if found := RECORD.match(line):
            error = (found["level"] or found["plain"]) in ("ERROR", "CRITICAL")
            records += [line] if error else []
        elif error:
            records[-1] += f"\n{line}"
    return records
