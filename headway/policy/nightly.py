"""What a night releases, and what not. Pure: what is live, what git says and what happened before is read first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.freeze_windows import Closed
from headway.domain.markdown import table_cell
from headway.ledger import ReleaseRecord

__all__ = ["Night", "night_markdown", "why_not"]

MAY_TRY_AGAIN = ("cancelled", "superseded", "expired")  # nobody found anything wrong with it


class Night(Frozen):
    """What one app's night came to."""

    app: str
    outcome: Literal["released", "not released", "failed"]
    sha: str = ""
    why: str = Field(default="", description="why it was not released, or how the release ended")


def why_not(head: str, live: str | None, before: ReleaseRecord | None, closed: Closed | None, override: str) -> str:
    """Why the commit at the head of the branch is not released tonight; empty when it is.

    `live` is the commit in the last environment, `before` the newest release of the head, `closed` the freeze of the
    last environment. An `override` is a person's reason to release in spite of a freeze.
    """
    if head == live:
        return "it is live"
    if before and before.open:
        return f"{before.name} is under way"
    if before and before.state not in MAY_TRY_AGAIN:
        return f"{before.name} {before.state.replace('_', ' ')}" + (f": {before.reason}" if before.reason else "")
    if closed and not override:
        return str(closed)
    return ""


def night_markdown(nights: Sequence[Night], override: str, by: str) -> str:
    """The summary that people read in the morning."""
    lines = ["### What the night released", ""]
    if override:
        lines += [f"In spite of freezes, says {table_cell(by)}: {table_cell(override)}", ""]
    if not nights:
        return "\n".join([*lines, "No app is registered: `headway app add REPO`"])
    lines += ["| app | commit | | |", "|---|---|---|---|"]
    lines += [f"| {one.app} | `{one.sha[:7] or '-'}` | {one.outcome} | {table_cell(one.why)} |" for one in nights]
    return "\n".join(lines)
