"""How long records of releases are kept."""

from __future__ import annotations

import os
from datetime import timedelta

from headway.domain.errors import UsageError

__all__ = ["keep_period"]

DEFAULT_DAYS = 90


def keep_period() -> timedelta:
    """HEADWAY_KEEP_DAYS, by default 90 days. Raises UsageError."""
    text = os.environ.get("HEADWAY_KEEP_DAYS") or str(DEFAULT_DAYS)
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"HEADWAY_KEEP_DAYS: expected a number of days, got {text!r}", "use 1 or more, such as 90")
    return timedelta(days=int(text))
