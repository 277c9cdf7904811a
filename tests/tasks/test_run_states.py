"""Final states of release runs in Prefect, and their names in its lists."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prefect.client.schemas.objects import StateType

from headway.domain.errors import HeadwayError, RolloutFailed
from headway.ledger import ReleaseRecord, ReleaseState
from tasks.release_record import run_state

WHY = RolloutFailed("production: p99 is 900 ms, the limit is 500 ms", "headway judge shop#5")


def closed(state: ReleaseState, subject: str | None = "Faster quotes") -> ReleaseRecord:
    now = datetime.now(UTC)
    return ReleaseRecord(
        id="r",
        app="shop",
        number=5,
        repo="/shop",
        ref="main",
        flow_run_id=None,
        requested_by="ann",
        state=state,
        reason=WHY.what,
        started_at=now,
        finished_at=now,
        subject=subject,
    )


@pytest.mark.parametrize(
    ("state", "type_", "name"),
    [
        ("rolled_back", StateType.FAILED, "Rolled back"),
        ("failed", StateType.FAILED, "Failed"),
        ("rejected", StateType.CANCELLED, "Rejected"),
        ("expired", StateType.CANCELLED, "Expired"),
        ("superseded", StateType.CANCELLED, "Superseded"),
    ],
)
def test_the_state_of_a_run_is_named_for_how_it_ended_with_the_reason_first(
    state: ReleaseState, type_: StateType, name: str
) -> None:
    found = run_state(closed(state), WHY)
    assert (found.type, found.name, found.message) == (type_, name, f"{WHY.what} (shop#5)")


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_state(closed("failed"), ZeroDivisionError())


def test_an_error_of_a_cancelled_run_is_raised_for_prefect() -> None:
    with pytest.raises(HeadwayError):
        run_state(closed("cancelled"), WHY)


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("Faster quotes", "shop#5 Faster quotes"),
        (None, "shop#5"),
        ("two\nlines", "shop#5 two lines"),
        ("word " * 40, f"shop#5 {'word ' * 17}word ..."),
    ],
)
def test_a_run_is_named_after_its_release(subject: str | None, title: str) -> None:
    assert closed("running", subject).title == title
    assert len(closed("running", subject).title) <= 100
