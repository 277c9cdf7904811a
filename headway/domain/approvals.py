"""A person's decision on a release that waits for approval."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.principal import Principal

__all__ = ["Decision", "Outcome", "Verb"]

Verb: TypeAlias = Literal["approved", "rejected"]


class Decision(Frozen):
    """What an authenticated principal decided."""

    principal: Principal
    decision: Verb
    reason: str = Field(default="", description="kept in the record")
    via: str = Field(description="where it was pressed: cli, ui, page, --yes or nightly")


class Outcome(Frozen):
    """What the decisions on a request come to. `waiting`: more people have to approve."""

    state: Literal["waiting", "approved", "rejected"]
    decided_by: str = Field(default="", description="who approved, or who rejected")
    reason: str = ""
