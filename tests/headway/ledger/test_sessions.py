"""Sessions: they begin once per link, and end by themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.ledger.sessions import ABSOLUTE, CODE, IDLE

ANN = Principal(kind="user", name="ann", groups=("owners",))


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock) as opened:
        yield opened


def test_a_code_begins_one_session(ledger: Ledger) -> None:
    code = ledger.sessions.offer(ANN)
    session = ledger.sessions.redeem(code)
    assert session is not None
    assert ledger.sessions.person(session) == ANN
    assert ledger.sessions.redeem(code) is None
    assert ledger.sessions.redeem("another") is None


def test_a_code_expires(ledger: Ledger, clock: Clock) -> None:
    code = ledger.sessions.offer(ANN)
    clock.advance(CODE)
    assert ledger.sessions.redeem(code) is None


def test_an_idle_session_expires(ledger: Ledger, clock: Clock) -> None:
    session = ledger.sessions.begin(ANN)
    for _ in range(3):
        clock.advance(IDLE - timedelta(minutes=2))
        assert ledger.sessions.person(session) == ANN
    clock.advance(IDLE)
    assert ledger.sessions.person(session) is None


def test_no_session_lasts_longer_than_a_week(ledger: Ledger, clock: Clock) -> None:
    session = ledger.sessions.begin(ANN)
    end = clock.now + ABSOLUTE
    while clock.now + IDLE / 2 < end:
        clock.advance(IDLE / 2)
        assert ledger.sessions.person(session) == ANN
    clock.advance(IDLE / 2)
    assert ledger.sessions.person(session) is None


def test_signing_out_ends_this_session_only(ledger: Ledger) -> None:
    one, other = ledger.sessions.begin(ANN), ledger.sessions.begin(ANN)
    ledger.sessions.end(one)
    ledger.sessions.end(one)
    assert ledger.sessions.person(one) is None
    assert ledger.sessions.person(other) == ANN


def test_removing_a_user_ends_every_session_of_theirs(ledger: Ledger) -> None:
    one, other = ledger.sessions.begin(ANN), ledger.sessions.begin(ANN)
    bob = ledger.sessions.begin(Principal(kind="user", name="bob"))
    ledger.grants.remove_user("ann", by="root")
    assert [ledger.sessions.person(session) for session in (one, other)] == [None, None]
    assert ledger.sessions.person(bob) is not None


def test_the_database_has_no_secret(ledger: Ledger, tmp_path: Path) -> None:
    secrets = [ledger.sessions.begin(ANN), ledger.sessions.offer(ANN)]
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        content = "\n".join(db.iterdump())
    assert not [secret for secret in secrets if secret in content]
