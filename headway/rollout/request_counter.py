"""Counters that never fall, also when the proxy that counts was restarted."""

from __future__ import annotations

from headway.domain.measurements import Measurements, RequestCounts
from headway.domain.ports import Target
from headway.rollout.own_requests import OwnRequests

__all__ = ["RequestCounter"]


class RequestCounter:
    """Cumulative readings of one app. Use one for a whole rollout: two may have seen different restarts."""

    def __init__(self, target: Target, app: str, own: OwnRequests | None = None) -> None:
        self.target = target
        self.app = app
        self.own = own or OwnRequests()
        self._run: str | None = None
        self._last: Measurements | None = None
        self._carried: Measurements | None = None  # counts before the last restart of the proxy

    def read(self) -> Measurements:
        """The next reading. Raises TargetError when the target cannot be measured."""
        raw = self.target.measure(self.app)
        if raw.run is not None:
            if self._run not in (None, raw.run):
                self._carried = self._last
            self._run = raw.run
        last, carried = self._last, self._carried
        counts = {
            revision: _rising(counts, _of(carried, revision), _of(last, revision))
            for revision, counts in raw.counts.items()
        }
        edge = None
        if raw.edge is not None:
            edge = _rising(raw.edge, carried.edge if carried else None, last.edge if last else None)
        self._last = raw.model_copy(update={"counts": counts, "edge": edge})
        return self._last


def _of(reading: Measurements | None, revision: str) -> RequestCounts | None:
    return reading.counts.get(revision) if reading else None


def _rising(now: RequestCounts, carried: RequestCounts | None, last: RequestCounts | None) -> RequestCounts:
    """Unanswered requests are the difference of counters that are not read in one moment: they may seem to fall."""
    total = now.plus(carried) if carried else now
    if last is not None and total.unanswered < last.unanswered:
        return total.model_copy(update={"unanswered": last.unanswered})
    return total
