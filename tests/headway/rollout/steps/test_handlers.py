"""Every type of step has a handler."""

from __future__ import annotations

from typing import get_args

from headway.domain.plan import Step
from headway.rollout.steps import HANDLERS


def test_every_type_of_step_has_one_handler() -> None:
    union, *_ = get_args(Step)
    assert set(HANDLERS) == set(get_args(union))
    assert len(set(HANDLERS.values())) == len(HANDLERS)
