"""Sign-ins with an identity provider are used once, and a name stays with the user who had it first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headway.ledger import Ledger
from headway.ledger.sign_ins import BEGUN

ISSUER = "https://login.example.com"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    now = BEGAN

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock) as opened:
        yield opened


def test_a_sign_in_is_used_once_by_its_browser(ledger: Ledger) -> None:
    begun, state, browser = ledger.sign_ins.begin("/prefect/runs")
    _, other_state, other_browser = ledger.sign_ins.begin("/")
    assert ledger.sign_ins.use(state, other_browser) is None
    assert ledger.sign_ins.use(other_state, browser) is None
    assert ledger.sign_ins.use(state, "") is None
    assert ledger.sign_ins.use(state, browser) == begun
    assert begun.page == "/prefect/runs"
    assert ledger.sign_ins.use(state, browser) is None


def test_a_sign_in_expires(ledger: Ledger, clock: Clock) -> None:
    _, state, browser = ledger.sign_ins.begin("/")
    clock.now += BEGUN - timedelta(seconds=1)
    _, other_state, other_browser = ledger.sign_ins.begin("/")
    clock.now += timedelta(seconds=1)
    assert ledger.sign_ins.use(state, browser) is None
    assert ledger.sign_ins.use(other_state, other_browser) is not None


def test_a_name_stays_with_its_first_user(ledger: Ledger) -> None:
    assert ledger.sign_ins.recognise("ann@example.com", ISSUER, "1")
    assert ledger.sign_ins.recognise("ann@example.com", ISSUER, "1")
    assert not ledger.sign_ins.recognise("ann@example.com", ISSUER, "2")
    assert ledger.sign_ins.recognise("ann.smith@example.com", ISSUER, "1")
    assert ledger.sign_ins.recognise("ann@example.com", "https://new.example.com", "2")


def test_a_name_is_free_when_its_user_is_removed(ledger: Ledger) -> None:
    ledger.sign_ins.recognise("ann@example.com", ISSUER, "1")
    ledger.grants.remove_user("ann@example.com", by="root")
    assert ledger.sign_ins.recognise("ann@example.com", ISSUER, "2")
