"""Requests of people to the Prefect API."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.server.api.dependencies import get_created_by

from headway.domain.principal import Principal
from headway.ledger import Ledger
from headway.ledger.prefect_requests import creator_headers

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
    assert ledger.prefect_requests.last_resume(RUN, 0) == ANN


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
    assert ledger.prefect_requests.last_resume(RUN, 0) is None


def test_a_resume_counts_after_the_form_was_shown_whatever_the_clocks_say(ledger: Ledger, clock: Clock) -> None:
    shown = ledger.prefect_requests.record(ANN, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, shown) is None
    clock.now -= timedelta(minutes=5)
    ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, shown) == BOB


def test_the_answer_of_one_is_not_attributed_to_another_who_pressed_too(ledger: Ledger) -> None:
    """The server accepts one of the two requests, and does not say which."""
    for person in (BOB, ANN, BOB):
        ledger.prefect_requests.record(person, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, 0) is None


def test_who_presses_twice_is_one_person(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, 0) == BOB


def test_a_token_with_the_name_of_a_user_is_another_principal(ledger: Ledger) -> None:
    ledger.prefect_requests.record(BOB, "POST", RESUME, RUN)
    ledger.prefect_requests.record(Principal(kind="token", name="bob"), "POST", RESUME, RUN)
    assert ledger.prefect_requests.last_resume(RUN, 0) is None


@pytest.mark.parametrize(
    "path",
    [
        f"{RESUME}/",
        f"{RESUME}?x=1",
        RESUME.replace(RUN, RUN.upper()),
        RESUME.replace(RUN, RUN.replace("-", "")),
        RESUME.replace(RUN, f"%7B{RUN}%7D"),
        RESUME.replace("resume", "res%75me"),
    ],
)
def test_a_resume_counts_however_its_path_is_written(ledger: Ledger, path: str) -> None:
    """Prefect accepts all of these: a spelling must not hide who pressed."""
    ledger.prefect_requests.record(BOB, "post", path, None)
    assert ledger.prefect_requests.last_resume(RUN, 0) == BOB


def test_the_creator_of_a_run_is_found_by_what_prefect_keeps_of_the_request(ledger: Ledger) -> None:
    for person in (ANN, BOB):
        request = ledger.prefect_requests.record(person, "POST", CREATE, None)
        kept = creator_headers(request, person)
        created_by = get_created_by(uuid.UUID(kept["prefect-automation-id"]), kept["prefect-automation-name"])
        assert created_by is not None
        assert created_by.display_value == person.name
        assert created_by.id is not None
        assert ledger.prefect_requests.creator(created_by.id) == person


@pytest.mark.parametrize("unknown", [uuid.UUID(int=7), uuid.UUID(int=2**63), uuid.UUID(RUN)])
def test_a_run_of_an_automation_has_no_person_as_creator(ledger: Ledger, unknown: uuid.UUID) -> None:
    ledger.prefect_requests.record(ANN, "POST", CREATE, None)
    assert ledger.prefect_requests.creator(unknown) is None
