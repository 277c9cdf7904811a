"""The heartbeat of a run, in a real ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.exceptions import Pause

from headway.domain.errors import HeadwayError
from headway.ledger import Ledger
from headway.system.processes import ProcessIdentity, this_process
from tasks import heartbeat
from tasks.heartbeat import beating


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def until_beat(ledger: Ledger, age: float = 60.0) -> ProcessIdentity:
    deadline = time.monotonic() + 60
    while (found := ledger.heartbeats.by_run().get("run-1")) is None or found.age > age:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found.process


def test_a_run_beats_while_it_is_executed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.1)
    with beating(ledger, "run-1"):
        assert until_beat(ledger) == this_process()
        time.sleep(0.5)
        until_beat(ledger, age=0.3)
    assert ledger.heartbeats.by_run() == {}


@pytest.mark.parametrize("end", [Pause, KeyboardInterrupt, ValueError])
def test_a_run_that_is_suspended_or_fails_is_not_executed(ledger: Ledger, end: type[BaseException]) -> None:
    def run() -> None:
        with beating(ledger, "run-1"):
            until_beat(ledger)
            raise end

    with pytest.raises(end):
        run()
    assert ledger.heartbeats.by_run() == {}


def test_a_ledger_that_cannot_be_written_does_not_end_the_run(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise HeadwayError("the ledger cannot be written: disk is full")

    monkeypatch.setattr(ledger.heartbeats, "beat", refuse)
    monkeypatch.setattr(ledger.heartbeats, "stop", refuse)
    with beating(ledger, "run-1"):
        pass
    assert len(caplog.messages) == 2
    assert "heartbeat: the ledger cannot be written: disk is full" in caplog.messages[0]
