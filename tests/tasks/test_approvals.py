"""Approval of commits from forks; answers of the form in the Prefect UI; approvals right before a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from prefect.logging import disable_run_logger

from headway.config import Approval, Environment, Settings
from headway.domain.errors import HeadwayError
from headway.domain.revision import Artifact, LaunchSpec
from headway.domain.source import Source
from headway.ledger import Ledger
from headway.ledger.records import APPROVAL, FORK
from tasks import approvals
from tasks.release_record import ReleaseSession
from tests.standins.people import decides, user

pytestmark = pytest.mark.slow

SHA = "a" * 40
LATER = datetime(2100, 1, 1, tzinfo=UTC)
ARTIFACT = Artifact(digest=f"sha256:{'1' * 64}", location="/bundle", size=1)
SOURCE = Source(
    repo="/r",
    ref=SHA,
    sha=SHA,
    tree=SHA,
    author="Bob",
    subject="Change",
    committed_at=datetime(2030, 1, 1, tzinfo=UTC),
    workspace="/w",
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.mark.parametrize("own", [True, False])
async def test_a_commit_of_a_fork_is_approved_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """In the run that had asked, and in a later one of the same commit."""
    monkeypatch.setattr(approvals, "request_fork_approval", approvals.request_fork_approval.fn)
    records = [ledger.releases.start("shop-pr-42", "/r", SHA, flow_run_id=run, requested_by="bob") for run in "12"]
    for one in records:
        ledger.releases.update(one.id, sha=SHA)
    releases = [ReleaseSession(ledger, one) for one in records]
    request = await approvals.request_fork_approval(releases[0], SOURCE, Approval())
    assert (request.revision, request.by) == (SHA[:12], [])
    decides(ledger, request.id, "approved", "ann")
    release = releases[0 if own else 1]
    await approvals.wait_for_fork_approval(release, SOURCE, Settings(app="shop-pr-42"))
    (stage,) = ledger.stages.by_release(release.record.id)
    assert (stage.name, stage.state) == ("approval of the fork", "passed" if own else "skipped")
    assert "approved by ann" in stage.detail


async def test_the_environment_names_who_may_approve_forks(ledger: Ledger) -> None:
    release = ledger.releases.start("shop-pr-42", "/r", SHA, flow_run_id="1", requested_by="bob")
    request = ledger.approvals.request(
        release.id, "preview", SHA[:12], evidence={}, expires_at=LATER, by=["ann"], not_author=False, asks=FORK
    )
    with pytest.raises(HeadwayError, match="bob may not decide"):
        decides(ledger, request.id, "approved", "bob")


RUN = "0b0f5c9e-3f66-4c65-a9a5-0d6bc2a4ad10"


@pytest.fixture
def asked(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ReleaseSession, str]]:
    """A release that waits for two approvals, and the id of its request."""
    monkeypatch.setenv("HEADWAY_HOME", str(tmp_path))
    made = ledger.releases.start("shop", "/r", SHA, flow_run_id=RUN, requested_by="dan")
    request = ledger.approvals.request(
        made.id, "production", "r1", evidence={}, expires_at=LATER, by=[], not_author=True, count=2
    )
    with disable_run_logger():
        yield ReleaseSession(ledger, made), request.id


def answers(asked: tuple[ReleaseSession, str], decision: Literal["approve", "reject"] = "approve") -> str:
    """What the flow does with the answer of the form that is open; returns the reason of a refusal."""
    release, request = asked
    form = approvals.Approval(decision=decision, reason="read it")
    return approvals._record_answer(release, release.ledger.approvals.get(request), form)


def presses(asked: tuple[ReleaseSession, str], *people: str) -> None:
    for name in people:
        asked[0].ledger.prefect_requests.record(user(name), "POST", f"/api/flow_runs/{RUN}/resume", RUN)


def test_the_answer_of_the_form_is_of_who_pressed(ledger: Ledger, asked: tuple[ReleaseSession, str]) -> None:
    for person in ("bob", "cleo"):
        presses(asked, person)
        assert answers(asked) == ""
    done = ledger.approvals.get(asked[1])
    assert (done.state, done.decided_by, done.form) == ("approved", "bob, cleo", 2)


@pytest.mark.parametrize("people", [(), ("bob", "cleo")])
def test_an_answer_of_an_unknown_person_approves_nothing(
    ledger: Ledger, asked: tuple[ReleaseSession, str], people: tuple[str, ...]
) -> None:
    """Nobody has come through the sign-in, or several: the server does not say whose answer it took."""
    presses(asked, *people)
    assert "it is not known who decided" in answers(asked)
    assert ledger.approvals.decisions(asked[1]) == []
    presses(asked, "bob")  # the next form
    assert answers(asked) == ""
    assert [one.person for one in ledger.approvals.decisions(asked[1])] == ["bob"]


def test_a_refused_answer_is_not_taken_for_that_of_the_next_person(
    ledger: Ledger, asked: tuple[ReleaseSession, str]
) -> None:
    presses(asked, "dan")  # who requested the release
    assert "dan is the author of the change" in answers(asked)
    assert "it is not known who decided" in answers(asked)  # resumed without another press
    presses(asked, "bob")
    assert answers(asked, "reject") == ""
    assert ledger.approvals.get(asked[1]).state == "rejected"
    assert [one.person for one in ledger.approvals.decisions(asked[1])] == ["bob"]


def test_the_form_has_no_field_for_a_name() -> None:
    assert set(approvals.Approval.model_fields) == {"decision", "reason"}


def test_yes_is_no_approval_when_a_service_started_the_run(
    ledger: Ledger, asked: tuple[ReleaseSession, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ledger.approvals.get(asked[1])
    assert approvals._approve_own(asked[0], request).state == "waiting"
    monkeypatch.setattr(approvals, "requester", lambda _: user("dan"))  # may not approve: the requester
    assert approvals._approve_own(asked[0], request).state == "waiting"
    assert ledger.approvals.decisions(asked[1]) == []
    monkeypatch.setattr(approvals, "requester", lambda _: user("bob"))
    assert approvals._approve_own(asked[0], request).state == "waiting"  # of two
    assert [one.via for one in ledger.approvals.decisions(asked[1])] == ["--yes"]


@pytest.mark.parametrize(
    "changed", [{}, {"live": "r9"}, {"digest": "e"}, {"frozen": "now", "stages": ["unit: passed"]}]
)
async def test_approvals_are_compared_with_the_evidence_right_before_the_rollout(
    ledger: Ledger, asked: tuple[ReleaseSession, str], monkeypatch: pytest.MonkeyPatch, changed: dict[str, object]
) -> None:
    shown: dict[str, object] = {"sha": SHA, "digest": "d", "configuration": "c", "live": None, "database": ""}
    release, spec = asked[0], LaunchSpec(environment="production", target="process/p", artifact=ARTIFACT, run="serve")
    ledger.releases.update(release.record.id, sha=SHA)
    revision = spec.revision("shop", SHA).id

    def ask(asks: str = APPROVAL) -> str:
        key = ("production", revision, asks)
        return approvals._request(release, shown, key, expires_at=LATER, by=[], not_author=False).id

    given = [ask(), ask("freeze until then")]
    assert [ask(), ask("freeze until then")] == given  # of a run that is resumed
    for one in given:
        decides(ledger, one, "approved", "bob", "urgent")
    before = dict(shown)
    shown |= changed

    async def evidence(*_: object) -> dict[str, object]:
        return shown

    monkeypatch.setattr(approvals, "evidence", evidence)
    permitted = await approvals.still_permitted(release, SOURCE, Environment(target="process/p"), spec)
    void = not all(before[name] == shown[name] for name in before)
    assert permitted == (not void)
    assert {ledger.approvals.get(one).state for one in given} == {"void" if void else "approved"}
    again = ledger.approvals.get(ask())
    assert (again.round, again.state, "again" in again.evidence) == (
        (1, "waiting", True) if void else (0, "approved", False)
    )
