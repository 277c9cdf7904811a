"""What a person reads in the Prefect UI: the evidence above an approval, the summary of a release. Markdown, pure."""

from __future__ import annotations

from collections.abc import Iterable

from headway.domain.markdown import table_cell
from headway.ledger import ApprovalRecord, ReleaseRecord, StageRecord, UserRequests
from headway.ledger.records import FORK

__all__ = ["evidence_markdown", "live_markdown", "release_markdown"]


def evidence_markdown(asked: ApprovalRecord, refusal: str = "", so_far: str = "") -> str:
    """The release to approve and its evidence.

    `refusal` is why the last answer was not accepted, `so_far` who has approved and how many are missing.
    """
    evidence = asked.evidence
    lines = [f"**{table_cell(refusal)}**", ""] if refusal else []
    lines += [f"**{table_cell(so_far)}**", ""] if so_far else []
    lines += [f"Requested again: {table_cell(evidence['again'])}", ""] if evidence.get("again") else []
    if asked.asks == FORK:
        return "\n".join([*lines, *_fork(asked)])
    lines += [
        f"### {evidence['release']} to {asked.environment}{' in spite of the freeze' if asked.frozen else ''}?",
        "",
        "| | |",
        "|---|---|",
        f"| artifact | `{evidence['digest']}` |",
        f"| configuration | `{evidence['configuration']}` |",
        f"| commit | `{evidence['sha']}` by {table_cell(evidence['author'])} |",
        f"| live now | `{evidence['live'] or 'nothing'}` |",
        *([f"| database | {table_cell(evidence['database'])} |"] if evidence.get("database") else []),
        *([f"| frozen | {table_cell(evidence['frozen'])} |"] if evidence.get("frozen") else []),
        f"| {'goes on' if asked.frozen else 'expires'} | {asked.expires_at:%Y-%m-%d %H:%M} UTC |",
        "",
        *_readiness(evidence.get("readiness", []), evidence.get("not_ready", [])),
        "**Commits since the last release**",
        "",
        *[f"- {table_cell(commit)}" for commit in evidence["commits"]],
        "",
        "**What has passed**",
        "",
        *[f"- {table_cell(stage)}" for stage in evidence["stages"]],
    ]
    return "\n".join(lines)


def _fork(asked: ApprovalRecord) -> list[str]:
    """Untrusted text is shown as code, without links."""
    evidence = asked.evidence
    author, subject = (table_cell(str(evidence[name])).replace("`", "'") for name in ("author", "subject"))
    return [
        f"### May {evidence['release']} run here?",
        "",
        f"Commit `{evidence['sha']}`, `{subject}`, by `{author}`, is from a fork: anybody may have written it.",
        "Its checks, its build and the app itself are programs that run as the worker's user. They are given no",
        "secrets, and can take whatever that user can reach, the Prefect API too.",
        "Look at all of it before you say yes.",
        "",
        f"The question expires at {asked.expires_at:%Y-%m-%d %H:%M} UTC.",
    ]


def _readiness(rows: list[dict[str, str]], not_ready: list[str]) -> list[str]:
    """The checklist; above it what is accepted with an approval."""
    if not rows:
        return []
    accepted = ["**Not ready: who approves accepts that**", "", *[f"- {table_cell(one)}" for one in not_ready], ""]
    table = [f"| {row['item']} | {row['state']} | {row['needed']} | {table_cell(row['evidence'])} |" for row in rows]
    return [*(accepted if not_ready else []), "| readiness | | needed | |", "|---|---|---|---|", *table, ""]


def release_markdown(release: ReleaseRecord, stages: Iterable[StageRecord], users: UserRequests | None) -> str:
    """The whole release in one table."""
    rows = [f"| {one.name} | {one.state} | {one.seconds:.1f} s | {table_cell(one.detail)} |" for one in stages]
    return "\n".join(
        [
            f"## {release.name}: {release.state}",
            "",
            *([table_cell(release.reason), ""] if release.reason else []),
            f"`{release.sha}` {table_cell(release.subject or '')}, `{release.digest or 'nothing built'}`",
            *(["", f"**{users}**"] if users else []),
            "",
            "| stage | | | |",
            "|---|---|---:|---|",
            *rows,
        ]
    )


def live_markdown(lines: Iterable[str]) -> str:
    """The live revisions, as reported by the platform."""
    return "\n".join(f"- {table_cell(line)}" for line in lines)
