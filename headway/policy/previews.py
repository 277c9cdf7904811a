"""Names, lifetime and comments of preview environments. Pure: the caller reads the ledger and the git host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from headway.domain.git import PullRequest
from headway.domain.markdown import code_cell
from headway.ledger import PreviewRecord, ReleaseRecord, StageRecord

__all__ = ["comment", "fitting_name", "name", "teardown_reason"]

NAME_LENGTH = 48  # characters; targets make a DNS label of a name and up to 15 more characters
HASH_DIGITS = 8  # replace the end of a name that is too long
DETAIL_LENGTH = 200  # characters of a stage's detail


def name(app: str, number: int) -> str:
    """Name of the preview of a pull request, such as `shop-pr-42`: unique, and short enough for a DNS label."""
    return fitting_name(app, f"-pr-{number}")


def fitting_name(app: str, ending: str) -> str:
    """The name of an app with an ending; with a hash of it in place of the part that makes it too long."""
    if len(app) + len(ending) <= NAME_LENGTH:
        return app + ending
    digits = hashlib.sha256(app.encode()).hexdigest()[:HASH_DIGITS]
    kept = app[: NAME_LENGTH - len(ending) - HASH_DIGITS - 1].rstrip("-")
    return f"{kept}-{digits}{ending}"


def teardown_reason(preview: PreviewRecord, open_now: Mapping[int, PullRequest] | None, now: datetime) -> str | None:
    """Why to tear down a preview; None to keep it.

    `open_now` are the open pull requests of its app by number, None if the git host was not read.
    """
    if open_now is not None and preview.number not in open_now:
        return "the pull request is not open any more"
    if preview.expires_at is not None and preview.expires_at <= now:
        return f"it expired at {preview.expires_at:%Y-%m-%d %H:%M} UTC"
    return None


def comment(preview: PreviewRecord, release: ReleaseRecord | None, stages: Iterable[StageRecord], url: str) -> str:
    """The comment on the pull request. `url` is the page of the flow run.

    Text from a commit or its commands is untrusted: it is shown as code, without mentions and links.
    """
    lines = [f"**Preview of {preview.of} #{preview.number}**: {_state(preview, release)}", ""]
    if release is None or release.sha is None:
        return "\n".join(lines).rstrip()
    reason = f": {code_cell(release.reason, DETAIL_LENGTH)}" if release.reason else ""
    lines.append(f"Commit {release.sha[:7]}, {release.name} {release.state.replace('_', ' ')}{reason}")
    rows = [f"| {one.name} | {one.state} | {code_cell(one.detail, DETAIL_LENGTH)} |" for one in stages]
    lines += ["", "| stage | | |", "|---|---|---|", *rows] if rows else []
    return "\n".join([*lines, "", f"[The run]({url})"])


def _state(preview: PreviewRecord, release: ReleaseRecord | None) -> str:
    if not preview.active:
        return f"torn down, {preview.reason}"
    if preview.url is None and release and release.state == "waiting":
        return "waiting for approval, because it is from a fork"
    if preview.url is None:
        return "nothing is deployed" if release and not release.open else "in progress"
    until = f", until {preview.expires_at:%Y-%m-%d %H:%M} UTC or the next push" if preview.expires_at else ""
    older = ", with an earlier commit" if release and release.state not in ("succeeded", "running") else ""
    return f"{preview.url}{older}{until}"
