"""Who failed is left alone for a while, longer every time: a host that is not well is not asked for each app anew."""

from __future__ import annotations

import time

from headway.domain.errors import GitHostError, HeadwayError

__all__ = ["LeftAlone"]

PAUSE = 10.0  # seconds
LONGEST_PAUSE = 600.0


class LeftAlone:
    """Whom to ask no more just now, by whatever name they have."""

    def __init__(self) -> None:
        self._rest: dict[str, tuple[float, float, str]] = {}

    def is_left(self, who: str) -> bool:
        return time.monotonic() < self._rest.get(who, (0.0, 0.0, ""))[0]

    def failed(self, who: str, error: HeadwayError) -> None:
        """It is left alone for as long as it wants, or twice as long as the time before."""
        _, before, _ = self._rest.get(who, (0.0, PAUSE / 2, ""))
        pause = min(2 * before, LONGEST_PAUSE)
        wanted = error.after if isinstance(error, GitHostError) else None
        self._rest[who] = (time.monotonic() + max(wanted or 0.0, pause), pause, error.what)

    def is_well(self, who: str) -> None:
        self._rest.pop(who, None)

    def why(self) -> dict[str, str]:
        """What those said who are not well."""
        return {who: said for who, (_, _, said) in self._rest.items()}
