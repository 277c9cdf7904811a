"""Requests of people to the Prefect API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headway.domain.principal import Principal
from headway.ledger import Ledger

RUN = "0b0f5c9e-3f66-4c65-a9a5-0d6bc2a4ad10"
OTHER = "5d2c26c1-8b0c-4b0e-8e6f-8f1a3f5ad8aa"
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ANN = Principal(kind="user", name="ann", groups=("release-owners",))
BOB = Principal(kind="user", name="bob")
RESUME = f"/api/flow_runs/{RUN}/resume"
CREATE = f"/api/deployments/{OTHER}/create_flow_run"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock) as opened:
        yield opened


def test_who_resumed_a_run_is_known_with_groups(ledger: Ledger) -> None:
    ledger.prefect_requests.record(ANN, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, NOW) == ANN


@pytest.mark.parametrize(
    ("method", "path", "run"),
    [
        ("POST", f"/api/flow_runs/{OTHER}/resume", OTHER),
        ("POST", f"/api/flow_runs/{RUN}/set_state", RUN),
        ("POST", f"/api/flow_runs/{RUN}/input", RUN),
        ("GET", f"/api/flow_runs/{RUN}", RUN),
        ("POST", CREATE, None),
    ],
)
def test_another_request_resumes_nothing(ledger: Ledger, method: str, path: str, run: str | None) -> None:
    ledger.prefect_requests.record(ANN, method, path, run)
    assert ledger.prefect_requests.last_resume(RUN, NOW) is None


def test_a_resume_counts_since_the_form_was_shown(ledger: Ledger, clock: Clock) -> None:
    ledger.prefect_requests.record(ANN, "POST", RESUME, RUN)
    clock.now += timedelta(seconds=5)
    assert ledger.prefect_requests.last_resume(RUN, clock.now) is None
    ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, clock.now) == BOB


def test_the_answer_of_one_is_not_attributed_to_another_who_pressed_too(ledger: Ledger) -> None:
    """The server accepts one of the two requests, and does not say which."""
    for person in (BOB, ANN, BOB):
        ledger.prefect_requests.record(person, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, NOW) is None


def test_who_presses_twice_is_one_person(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, NOW) == BOB


def test_a_token_with_the_name_of_a_user_is_another_principal(ledger: Ledger) -> None:
    ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    ledger.prefect_requests.record(Principal(kind="token", name="bob"), "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, NOW) is None


@pytest.mark.parametrize(
    "path",
    [
        CREATE,
        f"{CREATE}/",
        f"{CREATE}?x=1",
        CREATE.replace(OTHER, OTHER.upper()),
        CREATE.replace(OTHER, OTHER.replace("-", "")),
        CREATE.replace(OTHER, f"%7B{OTHER}%7D"),
        CREATE.replace("create_flow_run", "create%5Fflow_run"),
        f"{CREATE}/bulk",
    ],
)
def test_the_creator_of_a_run_is_found_however_the_path_is_written(ledger: Ledger, path: str) -> None:
    """Prefect accepts all of these: a spelling must not hide who it was."""
    ledger.prefect_requests.record(BOB, "post", path, None)
    assert ledger.prefect_requests.creators(OTHER, NOW + timedelta(seconds=2)) == [BOB]


def test_people_who_may_have_created_a_run_are_all_returned(ledger: Ledger, clock: Clock) -> None:
    ledger.prefect_requests.record(ANN, "POST", CREATE, None)
    clock.now += timedelta(seconds=1)
    ledger.prefect_requests.record(BOB, "POST", CREATE, None)
    assert ledger.prefect_requests.creators(OTHER, clock.now) == [BOB, ANN]


@pytest.mark.parametrize("after", [timedelta(seconds=-5), timedelta(seconds=90)])
def test_a_run_created_at_another_time_has_another_creator(ledger: Ledger, after: timedelta) -> None:
    ledger.prefect_requests.record(ANN, "POST", CREATE, None)
    assert ledger.prefect_requests.creators(OTHER, NOW + after) == []
    assert ledger.prefect_requests.creators(RUN, NOW) == []
