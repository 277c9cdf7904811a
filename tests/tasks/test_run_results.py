"""Which earlier result a run that comes back takes."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import run_results
from tasks.run_results import once_per_run

RUN = uuid.uuid4()


def call(*, run: uuid.UUID | None = RUN, task: str = "checkout") -> Any:
    """The context of a call of a task."""
    return SimpleNamespace(task=SimpleNamespace(name=task), task_run=SimpleNamespace(flow_run_id=run, name=task))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that Prefect knows of the task in this run, which has been suspended."""
    keys: list[str] = []
    monkeypatch.setattr(run_results, "_stored_keys", lambda _: keys)
    monkeypatch.setattr(run_results, "_was_suspended", lambda: True)
    return keys


def test_a_call_with_other_inputs_has_another_key() -> None:
    policy = once_per_run("source.sha")
    keys = [
        policy.compute_key(call(), {"source": SimpleNamespace(sha=sha, ref=ref)}) for sha, ref in ("ab", "ac", "bb")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_call_in_another_run_and_another_task_have_another_key() -> None:
    policy = once_per_run()
    calls = [call(), call(run=uuid.uuid4()), call(task="build")]
    assert len({policy.compute_key(one, {}) for one in calls}) == 3


def test_a_task_outside_of_a_flow_run_has_no_key() -> None:
    assert once_per_run().compute_key(call(run=None), {}) is None


def test_a_run_that_comes_back_finds_its_own_results(stored: list[str]) -> None:
    policy = once_per_run("ref")
    key = policy.compute_key(call(), {"ref": "main"})
    stored += [str(key), "another"]
    assert policy.compute_key(call(), {"ref": "main"}) == key


def test_a_run_that_comes_back_after_an_upgrade_takes_old_results_in_the_order_of_its_calls(stored: list[str]) -> None:
    policy = once_per_run("ref")
    stored += ["first", "second"]
    refs = ("base", "head", "base", "later")
    keys = [policy.compute_key(call(), {"ref": ref}) for ref in refs]
    assert keys[:3] == ["first", "second", "first"]
    assert keys[3] not in (None, *stored)


def test_a_call_that_follows_the_old_results_has_a_key_of_its_own(stored: list[str]) -> None:
    """A pull request from a fork: the base was checked out before the approval, the head is after it."""
    policy = once_per_run("ref")
    stored.append("base")
    assert policy.compute_key(call(), {"ref": "base"}) == "base"
    head = policy.compute_key(call(), {"ref": "head"})
    assert head == policy.compute_key(call(), {"ref": "head"})
    stored.append(str(head))
    assert policy.compute_key(call(), {"ref": "head"}) == head
