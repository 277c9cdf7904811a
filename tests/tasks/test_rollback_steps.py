"""The revision that a rollback returns to, when an earlier rollout or rollback was interrupted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.domain.plan import Drain, Plan, Promote, Retire, Route, Step
from headway.domain.revision import Artifact, LaunchSpec, Revision
from headway.domain.traffic import Traffic
from headway.ledger import Ledger, RolloutKind
from tasks import environment_lock
from tasks.environment_lock import hold
from tasks.rollback_steps import _destination

SPEC = LaunchSpec(environment="production", artifact=Artifact(digest="sha256:" + "a" * 64, location="/", size=1))
FIRST, SECOND = (SPEC.revision("shop", digit * 40) for digit in "12")


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_lock, "get_run_logger", lambda: logging.getLogger("test"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        for revision in (FIRST, SECOND):
            opened.revisions.save(revision, SPEC)
        yield opened


def plan(strategy: str, new: Revision, old: Revision) -> Plan:
    steps: tuple[Step, ...] = (
        Route(traffic=Traffic.all_to(new)),
        Promote(revision=new.id),
        Drain(revision=old.id, deadline=1),
        Retire(revision=old.id),
    )
    return Plan(strategy=strategy, new=new.id, old=old.id, steps=steps)


@pytest.mark.parametrize(
    ("kind", "done", "to"),
    [
        ("rollback", 0, SECOND),  # the traffic has not moved: the live revision stays
        ("rollback", 1, SECOND),
        ("rollback", 2, FIRST),  # it has moved: the revision that is being left does not come back
        ("rollback", 3, FIRST),
        ("release", 3, SECOND),  # its smoke tests have not run
    ],
)
async def test_destination_after_an_interruption(ledger: Ledger, kind: RolloutKind, done: int, to: Revision) -> None:
    async with hold(ledger, "shop", "production", holder="test", revision="r") as session:
        token = session.lock.token
        interrupted = ledger.rollouts.start(
            None, "shop", "production", plan("rolling", FIRST, SECOND), kind=kind, reason="", token=token
        )
        for index, step in enumerate(interrupted.plan.steps[: done + 1]):
            ledger.rollouts.start_step(interrupted, index, step, token)
            if index < done:
                ledger.rollouts.finish_step(interrupted, index, "done", "", None, token)
        revision, _ = _destination(session, None, ledger.rollouts.incomplete("shop", "production"))
    assert revision is not None
    assert revision.id == to.id
