"""Freeze windows: weekly ones, dated ones, and the public holidays of a country. Pure functions.

    Fri 16:00 - Mon 08:00 Europe/Berlin                              every week
    2026-12-19 12:00 - 2027-01-04 08:00 Europe/Berlin                once
    holidays DE-BW Europe/Berlin                                     a country, or one of its parts

Times are local times in the named zone. If daylight saving skips the hour in which a window begins, the window begins
when that hour would have. If it repeats the hour in which a window ends, the window ends in the second one.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from headway.domain.base import Frozen

__all__ = ["Closed", "Window", "closed", "parse"]

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FARTHEST = timedelta(days=366)  # an end is not looked for beyond this
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_ZONE = "[A-Za-z_]+(?:[/+-][A-Za-z0-9_+-]+)*"
_WEEKLY = rf"({'|'.join(DAYS)}) ({_TIME}) - ({'|'.join(DAYS)}) ({_TIME}) ({_ZONE})"
_DATED = rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} {_TIME}) - ([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} {_TIME}) ({_ZONE})"
_HOLIDAYS = rf"holidays ([A-Z]{{2}})(?:-([A-Z0-9]{{1,4}}))? ({_ZONE})"
PATTERN = re.sub(r"\((?!\?)", "(?:", f"{_WEEKLY}|{_DATED}|{_HOLIDAYS}")
"""Pattern of a window, without groups."""


class Closed(Frozen):
    """A freeze that is in force."""

    why: str
    until: datetime
    """Time, in UTC, at which no window is in force any more; at most about a year ahead."""

    def __str__(self) -> str:
        return f"frozen until {self.until:%a %Y-%m-%d %H:%M} UTC: {self.why}"


class Window(Frozen):
    """A recurring or single freeze window."""

    text: str
    zone: str

    @abstractmethod
    def span(self, at: datetime) -> tuple[datetime, str] | None:
        """End and reason of the window, if it is in force at this time."""

    def _at(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, ZoneInfo(self.zone)).astimezone(UTC)

    def _end(self, day: date, clock: time) -> datetime:
        return _latest(datetime.combine(day, clock, ZoneInfo(self.zone)))

    def _local(self, at: datetime) -> date:
        return at.astimezone(ZoneInfo(self.zone)).date()


class _Weekly(Window):
    begins: tuple[int, time]
    ends: tuple[int, time]

    def span(self, at: datetime) -> tuple[datetime, str] | None:
        (first, begin), (last, end) = self.begins, self.ends
        days = (last - first) % 7 or (7 if end <= begin else 0)
        today = self._local(at)
        for back in range(days + 1):
            day = today - timedelta(days=back)
            until = self._end(day + timedelta(days=days), end)
            if day.weekday() == first and self._at(day, begin) <= at < until:
                return until, self.text
        return None


class _Dated(Window):
    begins: datetime
    ends: datetime

    def span(self, at: datetime) -> tuple[datetime, str] | None:
        return (self.ends, self.text) if self.begins <= at < self.ends else None


class _Holidays(Window):
    country: str
    part: str | None

    def span(self, at: datetime) -> tuple[datetime, str] | None:
        today = self._local(at)
        name = _holidays(self.country, self.part, today.year).get(today)
        return (self._at(today + timedelta(days=1), time()), f"{name} ({self.text})") if name else None


def closed(windows: Iterable[str], at: datetime) -> Closed | None:
    """The freeze that is in force at this time (with a time zone), if there is one.

    Windows that follow each other without a gap are one. Raises ValueError when a window cannot be read.
    """
    rules = [parse(text) for text in windows]
    until, why = at.astimezone(UTC), ""
    while spans := [span for rule in rules if (span := rule.span(until))]:
        until, reason = max(spans)
        why = why or reason
        if until - at > FARTHEST:
            break
    return Closed(why=why, until=until) if why else None


def parse(text: str) -> Window:
    """Parse a window. Raises ValueError for a wrong form, time zone or country."""
    if match := re.fullmatch(_WEEKLY, text):
        first, begin, last, end, zone = match.groups()
        begins = DAYS.index(first), time.fromisoformat(begin)
        ends = DAYS.index(last), time.fromisoformat(end)
        if begins == ends:
            raise ValueError("a window that ends when it begins would never open")
        return _Weekly(text=text, zone=_zone(zone), begins=begins, ends=ends)
    if match := re.fullmatch(_DATED, text):
        zone = _zone(match[3])
        clocks = (datetime.fromisoformat(part).replace(tzinfo=ZoneInfo(zone)) for part in match.groups()[:2])
        first_clock, last_clock = clocks
        begin_at, end_at = first_clock.astimezone(UTC), _latest(last_clock)
        if end_at <= begin_at:
            raise ValueError("a window ends after it has begun")
        return _Dated(text=text, zone=zone, begins=begin_at, ends=end_at)
    if match := re.fullmatch(_HOLIDAYS, text):
        country, part, zone = match.groups()
        try:
            _holidays(country, part, 2025)
        except NotImplementedError:
            raise ValueError(f"holidays of {country}{(part and f'-{part}') or ''} are not known") from None
        return _Holidays(text=text, zone=_zone(zone), country=country, part=part)
    raise ValueError(
        "expected a window such as 'Fri 16:00 - Mon 08:00 Europe/Berlin', "
        "'2026-12-19 12:00 - 2027-01-04 08:00 Europe/Berlin' or 'holidays DE-BW Europe/Berlin'"
    )


def _latest(clock: datetime) -> datetime:
    """The last time, in UTC, that a local clock shows this: clocks that are set back show an hour twice."""
    return max(clock.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"there is no time zone {name!r}; one is Europe/Berlin, another UTC")
    return name


@cache
def _holidays(country: str, part: str | None, year: int) -> dict[date, str]:
    """Holidays of a country or a part of it. Raises NotImplementedError if the library does not have it."""
    import holidays  # a slow import that most have no use for

    return dict(holidays.country_holidays(country, subdiv=part, years=year).items())
