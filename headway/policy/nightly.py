"""Which apps the nightly flow releases. Pure: the caller reads the ledger and git."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from headway.domain.base import Frozen
from headway.domain.freeze_windows import Closed
from headway.domain.markdown import table_cell
from headway.domain.refusal import Refusal
from headway.ledger import ReleaseRecord

__all__ = ["NightlyResult", "nightly_markdown", "nightly_refusal"]

RETRIED_STATES = ("cancelled", "superseded", "expired")  # the release ended, but not because of the commit


class NightlyResult(Frozen):
    """What the nightly flow did for one app."""

    app: str
    outcome: Literal["released", "not released", "failed"]
    sha: str = ""
    why: str = Field(default="", description="why it was not released, or how the release ended")


def nightly_refusal(
    head: str, live: str | None, last: ReleaseRecord | None, closed: Closed | None, override: str
) -> Refusal | None:
    """Why the newest commit of the branch is not released; None if it is.

    `live` is the commit in the last environment, `last` the newest release of the commit, `closed` the active freeze
    window of the last environment. `override` is the reason for releasing in spite of a freeze.
    """
    if head == live:
        return Refusal("it is live")
    if last and last.open:
        return Refusal(f"{last.name} is in progress")
    if last and last.state not in RETRIED_STATES:
        reason = f": {last.reason}" if last.reason else ""
        return Refusal(f"{last.name} {last.state.replace('_', ' ')}{reason}")
    if closed and not override:
        return Refusal(str(closed))
    return None


def nightly_markdown(results: Sequence[NightlyResult], override: str, by: str) -> str:
    """Summary of a nightly run."""
    lines = ["### Nightly releases", ""]
    if override:
        lines += [f"Freezes overridden by {table_cell(by)}: {table_cell(override)}", ""]
    if not results:
        return "\n".join([*lines, "No app is registered: `headway app add REPO`"])
    lines += ["| app | commit | | |", "|---|---|---|---|"]
    lines += [f"| {one.app} | `{one.sha[:7] or '-'}` | {one.outcome} | {table_cell(one.why)} |" for one in results]
    return "\n".join(lines)
