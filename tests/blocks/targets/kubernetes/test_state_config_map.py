"""The history of revisions in an app's ConfigMap."""

from __future__ import annotations

from blocks.targets.kubernetes.state_config_map import REMEMBERED, State


def after(*revisions: str) -> tuple[str, ...]:
    state = State()
    for revision in revisions:
        state = state.carrying(revision)
    return state.carried


def test_history_is_newest_first() -> None:
    assert after("a", "b", "c") == ("c", "b", "a")
    assert after("a", "b", "b") == ("b", "a")


def test_history_skips_rolled_back_revisions() -> None:
    assert after("good", "newer", "bad", "newer") == ("newer", "good")
    assert after("a", "b", "c", "a") == ("a",)


def test_old_history_is_removed() -> None:
    assert len(after(*map(str, range(2 * REMEMBERED)))) == REMEMBERED
