"""Ages as people say them."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["format_age"]


def format_age(age: timedelta) -> str:
    """The age in its largest fitting unit, such as `3 h`."""
    seconds = age.total_seconds()
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} d"
    if hours >= 2:
        return f"{hours:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
