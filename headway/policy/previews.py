"""What stands for a pull request, and what is said about it. Pure: what hosts and the ledger say is read before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from headway.domain.git import PullRequest
from headway.domain.markdown import code_cell
from headway.ledger import PreviewRecord, ReleaseRecord, StageRecord

__all__ = ["comment", "name", "why_gone"]

LENGTH = 48  # characters of a name: targets add up to 15 to it, a revision for one, and make a DNS label of that
DIGITS = 8  # of a hash, in the place of what is cut off
TOLD = 200  # characters of what a stage says


def name(app: str, number: int) -> str:
    """What the app of a pull request is called, `shop-pr-42`: a DNS label with room for more, another one for each."""
    ending = f"-pr-{number}"
    if len(app) + len(ending) <= LENGTH:
        return app + ending
    digits = hashlib.sha256(app.encode()).hexdigest()[:DIGITS]
    kept = app[: LENGTH - len(ending) - DIGITS - 1].rstrip("-")
    return f"{kept}-{digits}{ending}"


def why_gone(preview: PreviewRecord, open_now: Mapping[int, PullRequest] | None, now: datetime) -> str:
    """Why a preview that stands should not any more; empty while it should.

    `open_now` are the open pull requests of its app by number, None when nobody says.
    """
    if open_now is not None and preview.number not in open_now:
        return "the pull request is not open any more"
    if preview.expires_at is not None and preview.expires_at <= now:
        return f"its time was over at {preview.expires_at:%Y-%m-%d %H:%M} UTC"
    return ""


def comment(preview: PreviewRecord, release: ReleaseRecord | None, stages: Iterable[StageRecord], url: str) -> str:
    """What stands under the pull request. `url` is where the run is looked at.

    What a commit, or its commands, say is shown as code: it may be anybody's, and mentions nobody and links nowhere.
    """
    lines = [f"**Preview of {preview.of} #{preview.number}**: {_standing(preview, release)}", ""]
    if release is None or release.sha is None:
        return "\n".join(lines).rstrip()
    why = f": {code_cell(release.reason, TOLD)}" if release.reason else ""
    lines.append(f"Commit {release.sha[:7]}, {release.name} {release.state.replace('_', ' ')}{why}")
    rows = [f"| {one.name} | {one.state} | {code_cell(one.detail, TOLD)} |" for one in stages]
    lines += ["", "| stage | | |", "|---|---|---|", *rows] if rows else []
    return "\n".join([*lines, "", f"[The run]({url})"])


def _standing(preview: PreviewRecord, release: ReleaseRecord | None) -> str:
    if not preview.stands:
        return f"torn down, {preview.reason}"
    if preview.url is None and release and release.state == "waiting":
        return "waits for a person to look at it: it is from a fork"
    if preview.url is None:
        return "nothing is deployed" if release and not release.open else "in the making"
    until = f", until {preview.expires_at:%Y-%m-%d %H:%M} UTC or the next push" if preview.expires_at else ""
    older = ", with an earlier commit" if release and release.state not in ("succeeded", "running") else ""
    return f"{preview.url}{older}{until}"
