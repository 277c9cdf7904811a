"""What an app's ConfigMap says of the way here."""

from __future__ import annotations

from blocks.targets.kubernetes.state_config_map import REMEMBERED, State


def after(*revisions: str) -> tuple[str, ...]:
    state = State()
    for revision in revisions:
        state = state.carrying(revision)
    return state.carried


def test_the_last_one_is_first() -> None:
    assert after("a", "b", "c") == ("c", "b", "a")
    assert after("a", "b", "b") == ("b", "a")


def test_nobody_goes_back_to_what_was_gone_back_from() -> None:
    assert after("good", "newer", "bad", "newer") == ("newer", "good")
    assert after("a", "b", "c", "a") == ("a",)


def test_what_is_long_ago_is_forgotten() -> None:
    assert len(after(*map(str, range(2 * REMEMBERED)))) == REMEMBERED
