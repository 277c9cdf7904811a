"""Freeze windows to the minute, across time zones, daylight saving and holidays."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headway.domain.freeze_windows import DAYS, closed, parse

BERLIN = "Europe/Berlin"
WEEKEND = f"Fri 16:00 - Mon 08:00 {BERLIN}"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2026-01-09 14:59", None),  # a Friday in winter: UTC is an hour behind
        ("2026-01-09 15:00", "2026-01-12 07:00"),
        ("2026-01-11 12:00", "2026-01-12 07:00"),
        ("2026-01-12 06:59", "2026-01-12 07:00"),
        ("2026-01-12 07:00", None),
        ("2026-03-27 15:00", "2026-03-30 06:00"),  # the clock goes forward in between
        ("2026-07-10 13:59", None),  # in summer two hours
        ("2026-07-10 14:00", "2026-07-13 06:00"),
    ],
)
def test_a_weekly_window_is_in_local_time(at: str, until: str | None) -> None:
    found = closed([WEEKEND], utc(at))
    assert (found and found.until) == (until and utc(until))


@pytest.mark.parametrize(
    ("window", "at", "is_closed"),
    [
        ("Mon 10:00 - Mon 08:00 UTC", "2026-01-12 07:00", True),  # all week but two hours
        ("Mon 10:00 - Mon 08:00 UTC", "2026-01-12 09:00", False),
        ("Mon 10:00 - Mon 08:00 UTC", "2026-01-12 10:00", True),
        ("Tue 22:00 - Tue 23:00 UTC", "2026-01-13 22:30", True),
        ("Tue 22:00 - Tue 23:00 UTC", "2026-01-14 22:30", False),
        ("Sun 23:00 - Mon 01:00 Pacific/Auckland", "2026-01-11 10:30", True),
    ],
)
def test_weekly_windows(window: str, at: str, is_closed: bool) -> None:
    assert bool(closed([window], utc(at))) is is_closed


def test_a_dated_window_closes_once() -> None:
    window = f"2026-12-19 12:00 - 2027-01-04 08:00 {BERLIN}"
    assert closed([window], utc("2026-12-19 10:59")) is None
    found = closed([window], utc("2026-12-19 11:00"))
    assert found is not None
    assert found.until == utc("2027-01-04 07:00")
    assert str(found) == f"frozen until Mon 2027-01-04 07:00 UTC: {window}"
    assert closed([window], utc("2027-12-25 12:00")) is None


def test_holidays_of_a_country_and_of_its_parts() -> None:
    epiphany = utc("2026-01-06 12:00")  # a holiday in Baden-Württemberg, none in Berlin
    assert closed([f"holidays DE-BE {BERLIN}"], epiphany) is None
    found = closed([f"holidays DE-BW {BERLIN}"], epiphany)
    assert found is not None
    assert found.until == utc("2026-01-06 23:00")
    assert closed(["holidays US America/New_York"], utc("2026-12-25 05:00")) is not None
    assert closed(["holidays US America/New_York"], utc("2026-12-25 04:59")) is None


def test_adjacent_windows_are_merged() -> None:
    # Good Friday, the weekend, Easter Monday.
    found = closed([f"holidays DE {BERLIN}", f"Fri 16:00 - Mon 08:00 {BERLIN}"], utc("2026-04-03 08:00"))
    assert found is not None
    assert found.until == utc("2026-04-06 22:00")


def test_search_for_an_open_time_ends_after_a_year() -> None:
    at = utc("2026-01-12 07:00")
    found = closed(["Mon 00:00 - Fri 00:00 UTC", "Fri 00:00 - Mon 00:00 UTC"], at)
    assert found is not None
    assert 366 < (found.until - at).days < 374


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Fri 16:00 - Mon 08:00 Europe/Berln", "no time zone 'Europe/Berln'"),
        ("Fri 16:00 - Fri 16:00 UTC", "would never open"),
        ("2027-01-04 08:00 - 2026-12-19 12:00 UTC", "ends after it has begun"),
        ("2026-02-30 08:00 - 2026-12-19 12:00 UTC", "day is out of range"),
        ("holidays XX UTC", "holidays of XX are not known"),
        ("holidays DE-QQ UTC", "holidays of DE-QQ are not known"),
        ("weekends", "expected a window such as"),
    ],
)
def test_invalid_window_is_an_error(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse(text)


@given(
    at=some.integers(1_577_836_800, 2_051_222_400).map(lambda second: datetime.fromtimestamp(second, UTC)),
    first=some.sampled_from(DAYS),
    last=some.sampled_from(DAYS),
    begin=some.times().map(lambda clock: f"{clock:%H:%M}"),
    end=some.times().map(lambda clock: f"{clock:%H:%M}"),
    zone=some.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe"]),
)
def test_freeze_ends_exactly_at_its_end_time(
    at: datetime, first: str, last: str, begin: str, end: str, zone: str
) -> None:
    if (first, begin) == (last, end):
        return
    window = f"{first} {begin} - {last} {end} {zone}"
    found = closed([window], at)
    if found:
        assert at < found.until
        assert closed([window], found.until) is None
        halfway = closed([window], at + (found.until - at) / 2)
        assert halfway is not None
        assert halfway.until == found.until


@pytest.mark.parametrize(
    ("window", "frozen", "open_again"),
    [
        # Clocks in Berlin go back from 03:00 to 02:00 on Sunday, 2026-10-25: 02:30 is at 00:30 and at 01:30 UTC.
        ("Sat 12:00 - Sun 02:30 Europe/Berlin", "2026-10-25T01:29:59+00:00", "2026-10-25T01:30:00+00:00"),
        ("2026-10-24 12:00 - 2026-10-25 02:30 Europe/Berlin", "2026-10-25T01:29:59+00:00", "2026-10-25T01:30:00+00:00"),
        ("Sun 01:00 - Sun 02:00 Europe/Berlin", "2026-10-25T00:59:59+00:00", "2026-10-25T01:00:00+00:00"),
        # In New York on Sunday, 2026-11-01, from 02:00 to 01:00.
        ("Fri 16:00 - Sun 01:15 America/New_York", "2026-11-01T06:14:59+00:00", "2026-11-01T06:15:00+00:00"),
        # The hour that clocks skip in spring, 02:00 to 03:00 on 2026-03-29, moves no end forward.
        ("Sat 12:00 - Sun 02:30 Europe/Berlin", "2026-03-29T01:29:59+00:00", "2026-03-29T01:30:00+00:00"),
        ("Sat 12:00 - Sun 03:30 Europe/Berlin", "2026-10-25T02:29:59+00:00", "2026-10-25T02:30:00+00:00"),
    ],
)
def test_window_that_ends_in_a_repeated_hour_ends_in_the_second_one(window: str, frozen: str, open_again: str) -> None:
    freeze = closed([window], datetime.fromisoformat(frozen))
    assert freeze
    assert freeze.until == datetime.fromisoformat(open_again)
    assert closed([window], datetime.fromisoformat(open_again)) is None


def test_window_that_begins_in_a_repeated_hour_begins_in_the_first_one() -> None:
    assert closed(["Sun 02:30 - Sun 08:00 Europe/Berlin"], datetime.fromisoformat("2026-10-25T00:30:00+00:00"))
